/** What the rules of a policy decide about the connections of one end: by rule, with whom, on which services. */
import { reasons, verdicts } from '../../schemas/closed-lists.ts';
import { type AddressInterval, intersectIntervals, mergeIntervals } from '../net/intervals.ts';
import { anyProtocol, anyWithPorts, isIcmp } from '../policy/compile.ts';
import { reasonCodeOf, ruleOf, verdictCodeOf } from '../policy/engine.ts';
import { type ServiceSlice, type Services, servicesOf } from './services.ts';
import type { AddressClass, World } from './world.ts';

/** One end of connections. */
export interface DecidedEnd {
  readonly identity: number;
  readonly blockSet: number;
}

export interface Decision {
  /** Index into the rules of the engine: they are in the order in which they decide. */
  readonly rule: number;
  readonly allows: boolean;
  readonly peers: readonly AddressInterval[];
  readonly services: Services;
}

const unexplained = verdicts.indexOf('unexplained');
const allowed = verdicts.indexOf('allowed');
/** No rule speaks of the two ends, on whatever port. */
const silentReasons: ReadonlySet<number> = new Set([
  reasons.indexOf('no-rule'),
  reasons.indexOf('outside-scope'),
]);

/** For each slice what rules decide: rule * 2 + 1 where it allows, rule * 2 where it denies, -1 where none speaks. */
export function decideSlices(
  world: World,
  source: DecidedEnd,
  destination: DecidedEnd,
  slices: readonly ServiceSlice[],
): Int32Array | null {
  const { engine, identities } = world;
  const [sourceIs, destinationIs] = [identities[source.identity], identities[destination.identity]];
  if (sourceIs === undefined || destinationIs === undefined)
    throw new RangeError('identity index out of range');
  const decided = new Int32Array(slices.length).fill(-1);
  for (const [index, { from, number }] of slices.entries()) {
    // Each question is asked once: the memo of verdicts would keep what nobody asks again.
    const packed = engine.evaluate(
      source.identity,
      source.blockSet,
      sourceIs,
      destination.identity,
      destination.blockSet,
      destinationIs,
      from,
      number,
    );
    const verdict = verdictCodeOf(packed);
    if (verdict !== unexplained) decided[index] = ruleOf(packed) * 2 + (verdict === allowed ? 1 : 0);
    else if (silentReasons.has(reasonCodeOf(packed))) return null;
  }
  return decided;
}

/** Slices that a rule speaks of. */
export function slicesOfRule(world: World, rule: number, slices: readonly ServiceSlice[]): number[] {
  const ports = (world.engine.rules[rule]?.ports ?? []).filter(({ process }) => process === -1);
  return slices.flatMap(({ from, number }, index) => {
    const speaks = ports.some(
      ({ protocol, fromPort, toPort }) =>
        (protocol === number || protocol === anyProtocol || (protocol === anyWithPorts && !isIcmp(number))) &&
        from >= fromPort &&
        from <= toPort,
    );
    return speaks ? [index] : [];
  });
}

interface DecidedClass {
  readonly peers: readonly AddressInterval[];
  readonly decided: Int32Array;
}

/** What a rule decides first somewhere, with all that it speaks of and that comes out the same whoever decides it. */
interface Group {
  readonly key: number;
  readonly chosen: readonly number[];
  readonly peers: AddressInterval[];
}

export const agrees = (decided: Int32Array, slice: number, key: number): boolean => {
  const own = decided[slice] ?? -1;
  return own !== -1 && (own & 1) === (key & 1);
};

function groupsOf(
  world: World,
  decidedClasses: readonly DecidedClass[],
  slices: readonly ServiceSlice[],
): Group[] {
  const groups = new Map<string, Group>();
  const spoken = new Map<number, readonly number[]>();
  for (const { peers, decided } of decidedClasses) {
    for (const key of new Set(decided)) {
      if (key === -1) continue;
      const own = spoken.get(key) ?? slicesOfRule(world, key >> 1, slices);
      spoken.set(key, own);
      const chosen = own.filter((slice) => agrees(decided, slice, key));
      const text = `${key} ${chosen.join()}`;
      const group = groups.get(text);
      if (group === undefined) groups.set(text, { key, chosen, peers: [...peers] });
      else group.peers.push(...peers);
    }
  }
  return [...groups.values()];
}

/** Fills gaps between peers with addresses for which it comes out the same anyway, where that makes fewer intervals. */
function widened({ key, chosen, peers }: Group, decidedClasses: readonly DecidedClass[]): AddressInterval[] {
  const own = mergeIntervals(peers);
  if (own.length < 2) return own;
  const same = decidedClasses.filter(({ decided }) => chosen.every((slice) => agrees(decided, slice, key)));
  const runs = mergeIntervals([...own, ...same.flatMap((one) => one.peers)]);
  return runs.flatMap((run) => {
    const inside = intersectIntervals(own, [run]);
    return inside.length > 1 ? [run] : inside;
  });
}

/**
 * Everything that rules decide about connections of one end with the addresses of `classes`, as far as they lie in
 * `space`. Decisions to allow and decisions to deny do not overlap: their order does not matter.
 */
export function decisionsOf(
  world: World,
  end: DecidedEnd,
  direction: 'ingress' | 'egress',
  classes: readonly AddressClass[],
  slices: readonly ServiceSlice[],
  space: readonly AddressInterval[],
): Decision[] {
  const decidedClasses = classes.flatMap(({ identity, blockSet, intervals }): DecidedClass[] => {
    const peers = intersectIntervals(intervals, space);
    if (peers.length === 0) return [];
    const peer = { identity, blockSet };
    const [source, destination] = direction === 'ingress' ? [peer, end] : [end, peer];
    const decided = decideSlices(world, source, destination, slices);
    return decided === null ? [] : [{ peers, decided }];
  });
  return groupsOf(world, decidedClasses, slices)
    .map((group) => ({
      rule: group.key >> 1,
      allows: (group.key & 1) === 1,
      peers: widened(group, decidedClasses),
      services: servicesOf(slices, group.chosen),
      first: group.chosen[0] ?? 0,
    }))
    .sort((a, b) => a.rule - b.rule || a.first - b.first || (lower(a.peers) < lower(b.peers) ? -1 : 1))
    .map(({ rule, allows, peers, services }) => ({ rule, allows, peers, services }));
}

const lower = (intervals: readonly AddressInterval[]): bigint => intervals[0]?.from ?? 0n;

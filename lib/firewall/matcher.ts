/**
 * Which rules a flow matches, for thousands of rules: addresses and ports are cut into segments in which all rules agree,
 * each segment has the set of its rules as bits, and a flow matches the rules in all three sets of its segments.
 */
import { type AddressSet, everyAddress, holds, isOpen } from './addresses.ts';
import type { StaticRule } from './rule.ts';
import { highestPort, protocolsOf } from './services.ts';

/** Rules as bits, 32 to a word. */
export type Bits = Uint32Array;

/** Segments of a line of addresses or ports, and the class of each: equal classes have equal rules. */
interface Segments<T extends bigint | number> {
  readonly starts: readonly T[];
  readonly classes: readonly number[];
}

/** The sets of rules, each once. */
class Classes {
  readonly sets: Bits[] = [];
  readonly #known = new Map<string, number>();
  of(bits: Bits): number {
    const key = Buffer.from(bits.buffer, bits.byteOffset, bits.byteLength).toString('latin1');
    let index = this.#known.get(key);
    if (index === undefined) {
      index = this.sets.length;
      this.sets.push(Uint32Array.from(bits));
      this.#known.set(key, index);
    }
    return index;
  }
}

interface Change<T> {
  readonly at: T;
  readonly rule: number;
  readonly opens: boolean;
}

/** Cuts a line at every place where a rule begins or ends; changes of one rule may overlap. */
function cut<T extends bigint | number>(
  changes: Change<T>[],
  zero: T,
  wordCount: number,
  classes: Classes,
): Segments<T> {
  changes.sort((a, b) => (a.at < b.at ? -1 : a.at > b.at ? 1 : 0));
  const starts: T[] = [];
  const out: number[] = [];
  const bits = new Uint32Array(wordCount);
  const open = new Map<number, number>();
  let at = zero;
  let next = 0;
  for (;;) {
    for (let change = changes[next]; change !== undefined && change.at === at; change = changes[++next]) {
      const { rule } = change;
      const count = (open.get(rule) ?? 0) + (change.opens ? 1 : -1);
      open.set(rule, count);
      const word = rule >> 5;
      const bit = 1 << (rule & 31);
      bits[word] = count > 0 ? (bits[word] ?? 0) | bit : (bits[word] ?? 0) & ~bit;
    }
    starts.push(at);
    out.push(classes.of(bits));
    const change = changes[next];
    if (change === undefined) return { starts, classes: out };
    at = change.at;
  }
}

function find<T extends bigint | number>({ starts, classes }: Segments<T>, value: T): number {
  let low = 0;
  let high = starts.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >>> 1;
    if ((starts[middle] ?? value) <= value) low = middle;
    else high = middle - 1;
  }
  return classes[low] ?? 0;
}

const portSpan = highestPort + 1;
const protocolCount = 256;

function serviceChanges(rules: readonly StaticRule[]): Change<number>[] {
  return rules.flatMap(({ services, index }) =>
    services.flatMap((range) => {
      const { first, last } = range;
      const isWhole = first === 0 && last === highestPort;
      const protocols = protocolsOf(range);
      if (protocols === null && isWhole)
        return [
          { at: 0, rule: index, opens: true },
          { at: protocolCount * portSpan, rule: index, opens: false },
        ];
      return (protocols ?? Array.from({ length: protocolCount }, (_, i) => i)).flatMap((protocol) => [
        { at: protocol * portSpan + first, rule: index, opens: true },
        { at: protocol * portSpan + last + 1, rule: index, opens: false },
      ]);
    }),
  );
}

export interface Matcher {
  readonly ruleCount: number;
  /** Sets of rules by class; of sources, destinations and services alike. */
  readonly sets: readonly Bits[];
  sourceClass(address: bigint): number;
  destinationClass(address: bigint): number;
  serviceClass(protocol: number, port: number): number;
  /** Rules that any source (destination) matches. */
  readonly anySource: Bits;
  readonly anyDestination: Bits;
  /** Rules that name sources (destinations): not all of a family. */
  readonly namedSource: Bits;
  readonly namedDestination: Bits;
}

function bitsWhere(rules: readonly StaticRule[], test: (rule: StaticRule) => boolean): Bits {
  const bits = new Uint32Array(Math.ceil(rules.length / 32));
  for (const rule of rules)
    if (test(rule)) bits[rule.index >> 5] = (bits[rule.index >> 5] ?? 0) | (1 << (rule.index & 31));
  return bits;
}

export function makeMatcher(rules: readonly StaticRule[]): Matcher {
  const wordCount = Math.ceil(rules.length / 32);
  const classes = new Classes();
  const cutEnds = (end: 'source' | 'destination'): Segments<bigint> =>
    cut(
      rules.flatMap((rule) =>
        rule[end].flatMap(({ first, last }) => [
          { at: first, rule: rule.index, opens: true },
          { at: last + 1n, rule: rule.index, opens: false },
        ]),
      ),
      0n,
      wordCount,
      classes,
    );
  const sources = cutEnds('source');
  const destinations = cutEnds('destination');
  const services = cut(serviceChanges(rules), 0, wordCount, classes);
  const isEvery = (set: AddressSet): boolean => holds(set, everyAddress);
  return {
    ruleCount: rules.length,
    sets: classes.sets,
    sourceClass: (address) => find(sources, address),
    destinationClass: (address) => find(destinations, address),
    serviceClass: (protocol, port) => find(services, protocol * portSpan + port),
    anySource: bitsWhere(rules, ({ source }) => isEvery(source)),
    anyDestination: bitsWhere(rules, ({ destination }) => isEvery(destination)),
    namedSource: bitsWhere(rules, ({ source }) => !isOpen(source)),
    namedDestination: bitsWhere(rules, ({ destination }) => !isOpen(destination)),
  };
}

/** The lowest rule from `from` on that is in all sets; -1 for none. An absent set holds every rule. */
export function nextCommon(ruleCount: number, from: number, sets: readonly (Bits | null)[]): number {
  const words = Math.ceil(ruleCount / 32);
  for (let word = from >> 5; word < words; word++) {
    let bits = word === from >> 5 ? -1 << (from & 31) : -1;
    for (const set of sets) if (set !== null) bits &= set[word] ?? 0;
    if (bits === 0) continue;
    const rule = word * 32 + 31 - Math.clz32(bits & -bits);
    return rule < ruleCount ? rule : -1;
  }
  return -1;
}

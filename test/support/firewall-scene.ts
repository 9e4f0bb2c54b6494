/** What tests of the firewall audit share: a slow recount of static rules, and an estate written straight to the store. */
import { makeEstate } from '../../estate/index.ts';
import { inventoryKey } from '../../lib/inventory/events.ts';
import { identityId } from '../../lib/inventory/ids.ts';
import { Inventory } from '../../lib/inventory/inventory.ts';
import { formatAddress, toMapped } from '../../lib/net/address.ts';
import { makeLabeller } from '../../lib/policy/profiles.ts';
import type { Store } from '../../lib/store/store.ts';
import { Catalog } from '../../services/enrich/catalog.ts';

/** A reported flow, as the recount needs it. */
export interface RawFlow {
  readonly time: number;
  readonly src_ip: string;
  readonly dst_ip: string;
  readonly src_identity: string;
  readonly dst_identity: string;
  readonly src_workload: string;
  readonly dst_workload: string;
  readonly dst_port: number;
  readonly protocol: number;
  readonly side: string;
  readonly connections: number;
  readonly bytes_forward: number;
  readonly bytes_reverse: number;
  readonly original_dst_ip?: string;
  readonly original_dst_port?: number;
}

/** A static rule as a test makes it: sets of plain tests, not of ranges. */
export interface PlainRule {
  readonly source: string;
  readonly destination: string;
  readonly port: string;
  readonly action: 'allow' | 'deny';
}

const known = new Map<string, boolean>();

function inPart(address: string, part: string): boolean {
  if (part === 'any') return true;
  const key = `${address} ${part}`;
  const found = known.get(key) ?? isWithin(address, part);
  known.set(key, found);
  return found;
}

function isWithin(address: string, part: string): boolean {
  const bits = (text: string): string =>
    [...toMapped(text.includes(':') ? ip6(text) : Uint8Array.from(text.split('.').map(Number)))]
      .map((byte) => byte.toString(2).padStart(8, '0'))
      .join('');
  const [base = '', length] = part.split('/');
  const kept = length === undefined ? 128 : Number(length) + (base.includes(':') ? 0 : 96);
  return bits(address).slice(0, kept) === bits(base).slice(0, kept);
}

/** Only what tests write: groups around one `::`. */
function ip6(text: string): Uint8Array {
  const [left = '', right = ''] = text.split('::');
  const groups = (half: string): number[] =>
    half === '' ? [] : half.split(':').map((group) => Number.parseInt(group, 16));
  const head = groups(left);
  const tail = groups(right);
  const all = [...head, ...new Array<number>(8 - head.length - tail.length).fill(0), ...tail];
  return Uint8Array.from(all.flatMap((group) => [group >> 8, group & 255]));
}

function inPort(protocol: number, port: number, part: string): boolean {
  if (part === 'any') return true;
  const [ports = '', name] = part.split('/');
  const wanted = name === undefined ? [6, 17] : name === 'tcp' ? [6] : [17];
  const [first, last = first] = ports.split('-').map(Number);
  return wanted.includes(protocol) && port >= (first ?? 0) && port <= (last ?? 0);
}

const anyOf = (list: string, test: (part: string) => boolean): boolean => list.split(';').some(test);

/** Whether a flow matches, by the address it went to or by the one before NAT where the rule names that. */
function matches(rule: PlainRule, flow: RawFlow): { readonly isFront: boolean } | null {
  if (!anyOf(rule.source, (part) => inPart(flow.src_ip, part))) return null;
  const to = (ip: string, port: number): boolean =>
    anyOf(rule.destination, (part) => inPart(ip, part)) &&
    anyOf(rule.port, (part) => inPort(flow.protocol, port, part));
  if (to(flow.dst_ip, flow.dst_port)) return { isFront: false };
  const { original_dst_ip: front } = flow;
  const isNamed = rule.destination !== 'any';
  return front !== undefined && isNamed && to(front, flow.original_dst_port ?? 0) ? { isFront: true } : null;
}

export interface Recounted {
  flows: number;
  connections: number;
  bytesForward: number;
  bytesReverse: number;
  firstS: number | null;
  lastS: number | null;
  readonly sources: Set<string>;
  readonly destinations: Set<string>;
  readonly services: Set<string>;
}

/** Every flow against every rule, one after another; of each edge the larger side counts. */
export function recountRules(
  rules: readonly PlainRule[],
  flows: readonly RawFlow[],
  mode: 'first' | 'any',
): { readonly rules: Recounted[]; readonly unmatched: number } {
  const out = rules.map(
    (): Recounted => ({
      flows: 0,
      connections: 0,
      bytesForward: 0,
      bytesReverse: 0,
      firstS: null,
      lastS: null,
      sources: new Set(),
      destinations: new Set(),
      services: new Set(),
    }),
  );
  const sums = rules.map(() => new Map<string, Record<string, number[]>>());
  let unmatched = 0;
  for (const flow of flows) {
    let isMatched = false;
    for (const [i, rule] of rules.entries()) {
      const found = matches(rule, flow);
      const count = out[i];
      if (found === null || count === undefined) continue;
      isMatched = true;
      count.flows++;
      count.firstS = Math.min(count.firstS ?? flow.time, flow.time);
      count.lastS = Math.max(count.lastS ?? flow.time, flow.time);
      count.sources.add(flow.src_ip);
      count.destinations.add(found.isFront ? (flow.original_dst_ip ?? '') : flow.dst_ip);
      count.services.add(
        `${found.isFront ? flow.original_dst_port : flow.dst_port}/${flow.protocol === 6 ? 'tcp' : 'udp'}`,
      );
      const src = flow.src_workload === '0' ? flow.src_ip : '';
      const dst = flow.dst_workload === '0' ? flow.dst_ip : '';
      const key = [flow.src_identity, flow.dst_identity, src, dst, flow.dst_port, flow.protocol].join(' ');
      const edge = sums[i]?.get(key) ?? {};
      const side = edge[flow.side] ?? [0, 0, 0];
      edge[flow.side] = [
        (side[0] ?? 0) + flow.connections,
        (side[1] ?? 0) + flow.bytes_forward,
        (side[2] ?? 0) + flow.bytes_reverse,
      ];
      sums[i]?.set(key, edge);
      if (mode === 'first') break;
    }
    if (!isMatched) unmatched++;
  }
  for (const [i, edges] of sums.entries()) {
    const count = out[i];
    if (count === undefined) continue;
    for (const edge of edges.values()) {
      const larger = (of: number): number => Math.max(...Object.values(edge).map((side) => side[of] ?? 0));
      count.connections += larger(0);
      count.bytesForward += larger(1);
      count.bytesReverse += larger(2);
    }
  }
  return { rules: out, unmatched };
}

const insertRows = 20_000;

/** Lets an estate live for a while and writes what a perfect pipeline would have: flows, identities, who had what. */
export async function writeEstate(store: Store, startMs: number, minutes: number) {
  const estate = makeEstate({
    seed: 'firewall',
    size: 'tiny',
    startMs,
    flowsPerSecond: 60,
    intervalMs: 5000,
    churnPerMinute: 0.5,
  });
  const policy = estate.policy();
  const inventory = new Inventory({ maxIntervalsPerAddress: 100, labelsOf: makeLabeller(policy.profiles) });
  for (const event of estate.inventory()) inventory.apply(inventoryKey(event), event);
  const rows: RawFlow[] = [];
  const identities = new Map<string, Record<string, unknown>>();
  while (estate.nowMs < startMs + minutes * 60_000) {
    const step = estate.step(estate.nowMs + 5000);
    for (const { event } of step.inventoryEvents) inventory.apply(inventoryKey(event), event);
    for (const [i, { flows }] of step.batches.entries()) {
      for (const [j, flow] of flows.entries()) {
        const truth = step.truth[i]?.[j];
        if (truth === undefined) throw new Error('the truth of a flow is missing');
        const identity = (end: 'src' | 'dst'): string => {
          const content = {
            kind: truth[`${end}Kind`],
            cluster: truth[`${end}Cluster`],
            namespace: truth[`${end}Namespace`],
            name: truth[`${end}Name`],
            zone: truth[`${end}Zone`],
            labels: truth[`${end}Labels`],
          };
          const id = String(identityId(content));
          const { labels, ...rest } = content;
          const keys = Object.keys(labels).sort();
          identities.set(id, {
            id,
            ...rest,
            app: labels.app ?? '',
            role: labels.role ?? '',
            env: labels.env ?? '',
            loc: labels.loc ?? '',
            label_keys: keys,
            label_values: keys.map((key) => labels[key] ?? ''),
          });
          return id;
        };
        const front = flow.originalDestinationAddress;
        rows.push({
          time: truth.startSecond,
          src_ip: truth.srcIp,
          dst_ip: truth.dstIp,
          src_identity: identity('src'),
          dst_identity: identity('dst'),
          src_workload: String(truth.srcWorkload),
          dst_workload: String(truth.dstWorkload),
          dst_port: truth.dstPort,
          protocol: truth.protocol,
          side: truth.side,
          connections: flow.connectionCount,
          bytes_forward: flow.bytesForward,
          bytes_reverse: flow.bytesReverse,
          ...(front.length === 0
            ? {}
            : {
                original_dst_ip: formatAddress(toMapped(front)),
                original_dst_port: flow.originalDestinationPort,
              }),
        });
      }
    }
  }
  await store.insertRows('identities', [...identities.values()]);
  await new Catalog(store, inventory).flush([policy]);
  await writeRaw(store, rows);
  return { world: estate.world, rows };
}

/** Rows of `flows`; the rollups follow. */
export async function writeRaw(store: Store, rows: readonly RawFlow[]): Promise<void> {
  const mapped = (ip: string): string => (ip.includes(':') ? ip : `::ffff:${ip}`);
  const list = rows.map((row) => ({
    ...row,
    src_ip: mapped(row.src_ip),
    dst_ip: mapped(row.dst_ip),
    original_dst_ip: mapped(row.original_dst_ip ?? '::'),
    original_dst_port: row.original_dst_port ?? 0,
  }));
  for (let at = 0; at < list.length; at += insertRows)
    await store.insertRows('flows', list.slice(at, at + insertRows));
}

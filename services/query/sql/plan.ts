/**
 * Which tables answer a question about edges: the smallest that suffice. Whole hours come from `edges_1h`, the minutes
 * around them from `edges_1m`, and only what rollups don't hold (addresses of workloads) from single flows.
 */
import { sides } from '../../../schemas/closed-lists.ts';
import type { FlowFilter, Window } from '../filters.ts';
import { allOf, type Bindings } from './bindings.ts';

export type EdgeTable = 'flows' | 'edges_1m' | 'edges_1h';

/** Part of a plan: rows of one table with `fromS <= time < toS`. */
export interface EdgePart {
  readonly table: EdgeTable;
  readonly fromS: number;
  readonly toS: number | null;
}

export interface EdgePlan {
  /** The window as it is answered: widened to whole minutes (or hours) where rollups answer. */
  readonly window: Window;
  readonly parts: readonly EdgePart[];
  /** The tables, for the answer: `edges_1h+edges_1m`. */
  readonly table: string;
}

const minute = 60;
const hour = 3600;
/** Below this many whole hours the rollup per minute answers alone. */
const fewestHours = 2;

function down(value: number, step: number): number {
  return Math.floor(value / step) * step;
}

function up(value: number, step: number): number {
  return Math.ceil(value / step) * step;
}

/** Days that single flows and minutes are kept: what is older comes from hours alone. */
export interface Kept {
  readonly minuteDays: number;
}

/** Whether only `flows` can tell: rollups hold no address where the workload is known. */
export function needsFlows(filter: FlowFilter): boolean {
  return filter.address !== null || filter.sourceAddress !== null || filter.destinationAddress !== null;
}

function describe(window: Window, parts: readonly EdgePart[]): EdgePlan {
  const table = [...new Set(parts.map((part) => part.table))].sort().join('+');
  return { window, parts, table };
}

export function planEdges(filter: FlowFilter, nowMs: number, kept: Kept): EdgePlan {
  const nowS = Math.floor(nowMs / 1000);
  const asked = filter.window;
  // A time to come bounds nothing that could be stored, but clocks differ: leave the end open.
  const openEnd = asked.untilS === null || asked.untilS >= nowS;
  if (needsFlows(filter)) {
    const window = { sinceS: asked.sinceS, untilS: asked.untilS };
    return describe(window, [{ table: 'flows', fromS: window.sinceS, toS: window.untilS }]);
  }
  if (asked.sinceS < nowS - kept.minuteDays * 86_400) {
    const window = {
      sinceS: down(asked.sinceS, hour),
      untilS: openEnd ? null : up(asked.untilS ?? nowS, hour),
    };
    return describe(window, [{ table: 'edges_1h', fromS: window.sinceS, toS: window.untilS }]);
  }
  const window = {
    sinceS: down(asked.sinceS, minute),
    untilS: openEnd ? null : up(asked.untilS ?? nowS, minute),
  };
  const hoursFrom = up(window.sinceS, hour);
  const hoursTo = window.untilS === null ? null : down(window.untilS, hour);
  if ((hoursTo ?? nowS) - hoursFrom < fewestHours * hour) {
    return describe(window, [{ table: 'edges_1m', fromS: window.sinceS, toS: window.untilS }]);
  }
  const parts: EdgePart[] = [{ table: 'edges_1h', fromS: hoursFrom, toS: hoursTo }];
  if (window.sinceS < hoursFrom) parts.push({ table: 'edges_1m', fromS: window.sinceS, toS: hoursFrom });
  if (window.untilS !== null && hoursTo !== null && hoursTo < window.untilS) {
    parts.push({ table: 'edges_1m', fromS: hoursTo, toS: window.untilS });
  }
  return describe(window, parts);
}

/** Series need buckets that the rollup per hour can't give: the same plan from minutes alone where `stepS` is below an hour. */
export function planSeries(filter: FlowFilter, stepS: number, nowMs: number, kept: Kept): EdgePlan {
  const plan = planEdges(filter, nowMs, kept);
  if (stepS % hour === 0 || plan.table === 'flows' || plan.table === 'edges_1m') return plan;
  return describe(plan.window, [{ table: 'edges_1m', fromS: plan.window.sinceS, toS: plan.window.untilS }]);
}

export function timeCondition(
  part: { readonly fromS: number; readonly toS: number | null },
  bindings: Bindings,
): string {
  const from = `time >= toDateTime(${bindings.bind('UInt32', part.fromS)})`;
  return part.toS === null ? from : `${from} AND time < toDateTime(${bindings.bind('UInt32', part.toS)})`;
}

const sums = [
  'flows',
  'connections',
  'bytes_forward',
  'bytes_reverse',
  'packets_forward',
  'packets_reverse',
] as const;

/** Columns that tell one edge from another. */
export const edgeKey =
  'src_identity, dst_identity, src_ip, dst_ip, dst_port, protocol, verdict, reason, rule';

/** Single flows, whether their names are settled or not. */
export const allFlows = 'flows_all';

/** Rows of one part with the columns of the rollups, filtered. */
function partRows(part: EdgePart, conditions: string, bindings: Bindings): string {
  const time = timeCondition(part, bindings);
  const where = conditions === '1' ? time : `${time} AND ${conditions}`;
  if (part.table !== 'flows') {
    return `SELECT time, ${edgeKey}, side, pending, ${sums.join(', ')}, first_seen, last_seen FROM ${part.table} WHERE ${where}`;
  }
  // The names inside the subquery are those of the table, so that address filters see the addresses themselves.
  return `SELECT time, src_identity, dst_identity,
      if(src_workload = 0, src_address, toIPv6('::')) AS src_ip, if(dst_workload = 0, dst_address, toIPv6('::')) AS dst_ip,
      dst_port, protocol, verdict, reason, rule, side, pending, toUInt64(1) AS flows, toUInt64(connections) AS connections,
      bytes_forward, bytes_reverse, packets_forward, packets_reverse, time AS first_seen, time AS last_seen
    FROM (SELECT time, src_identity, dst_identity, src_workload, dst_workload, src_ip AS src_address, dst_ip AS dst_address,
        dst_port, protocol, verdict, reason, rule, side, pending, connections, bytes_forward, bytes_reverse, packets_forward,
        packets_reverse FROM ${allFlows} WHERE ${where})`;
}

/** Rows of all parts, one per edge, side and bucket, not yet merged. */
export function planRows(plan: EdgePlan, conditions: readonly string[], bindings: Bindings): string {
  const where = allOf(conditions);
  return plan.parts.map((part) => partRows(part, where, bindings)).join('\n    UNION ALL ');
}

/** The larger of the sides' sums, which is exact whenever either side is complete. */
function larger(column: string): string {
  return `greatest(sumIf(${column}, side = 'source'), sumIf(${column}, side = 'destination'), sumIf(${column}, side = 'middle'))`;
}

/** Rows that a repair took back sum to 0 and leave no side. */
const reportingSides = `arrayFilter(name -> name != '', [${sides
  .map((side) => `if(sumIf(flows, side = '${side}') = 0, '', '${side}')`)
  .join(', ')}]) AS sides`;

/** The merged sums, as `c_<name>` so that no alias hides a column; `c_pending` counts reports that are not settled. */
export const mergedSums = `sum(flows) AS c_flows, sumIf(flows, pending = 1) AS c_pending, ${sums
  .slice(1)
  .map((column) => `${larger(column)} AS c_${column}`)
  .join(', ')}, ${reportingSides}`;

/** What remains after repairs: a group whose flows sum to 0 is no more. */
export const stillThere = 'c_flows != 0';

/** First and last sight in Unix seconds: of settled reports, and of pending ones where there are any left. */
const mergedSight = `least(if(c_flows = c_pending, 4294967295, toUnixTimestamp(minIf(first_seen, pending = 0))),
      if(c_pending = 0, 4294967295, toUnixTimestamp(minIf(first_seen, pending = 1)))) AS c_first_s,
    greatest(if(c_flows = c_pending, 0, toUnixTimestamp(maxIf(last_seen, pending = 0))),
      if(c_pending = 0, 0, toUnixTimestamp(maxIf(last_seen, pending = 1)))) AS c_last_s`;

/**
 * What tells one edge from another, in 32 bytes: a key of that size is grouped by in half the time. Only addresses and rule
 * share 8 of them, so what could be taken for one, by a chance of 1 in 2^64, are addresses of the same two identities.
 */
const shortKey = `r.src_identity, r.dst_identity, bitXor(r.rule, cityHash64(r.src_ip, r.dst_ip)),
    toUInt32(r.dst_port) * 65536 + r.protocol * 256 + toInt8(r.verdict) * 16 + toInt8(r.reason)`;

const keyColumns = `r.src_identity AS src_identity, r.dst_identity AS dst_identity, ${edgeKey
  .split(', ')
  .slice(2)
  .map((column) => `any(r.${column}) AS ${column}`)
  .join(', ')}`;

/** Edges merged over sides: the key, the sums, the sides that reported, first and last sight; `extraKey` adds a column to the key. */
export function mergedEdges(
  plan: EdgePlan,
  conditions: readonly string[],
  bindings: Bindings,
  extraKey: { readonly expression: string; readonly name: string } | null = null,
): string {
  const extra = extraKey === null ? '' : `${extraKey.expression} AS ${extraKey.name}, `;
  const group = extraKey === null ? '' : `${extraKey.name}, `;
  return `SELECT ${extra}${keyColumns}, ${mergedSums}, ${mergedSight}
  FROM (
    ${planRows(plan, conditions, bindings)}
  ) AS r
  GROUP BY ${group}${shortKey}
  HAVING ${stillThere}`;
}

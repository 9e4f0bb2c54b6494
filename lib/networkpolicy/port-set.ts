/**
 * Sets of ports of TCP, UDP and SCTP, with all other protocols as one more member: sorted, disjoint intervals on one
 * line of numbers, so that unions and intersections need not know of protocols.
 */
import { type PolicyProtocol, policyProtocols } from './model.ts';

/** Flat pairs: first and last of each interval, both inclusive. */
export type PortSet = readonly number[];

const portsOfProtocol = 65536;
/** The member that stands for every protocol without ports. */
const otherPlace = policyProtocols.length * portsOfProtocol;

/** `null` for a protocol that NetworkPolicy does not speak of. */
export function portPlace(protocol: PolicyProtocol | null, port: number): number {
  return protocol === null ? otherPlace : policyProtocols.indexOf(protocol) * portsOfProtocol + port;
}

export const noPorts: PortSet = [];
export const allPorts: PortSet = [0, otherPlace];

export function portRange(protocol: PolicyProtocol, from: number, to: number): PortSet {
  return [portPlace(protocol, from), portPlace(protocol, to)];
}

/** @param sets in any order, overlapping or not */
export function unionOf(sets: readonly PortSet[]): PortSet {
  const [only] = sets;
  if (sets.length === 1 && only !== undefined) return only;
  const pairs: [number, number][] = [];
  for (const set of sets) for (let i = 0; i < set.length; i += 2) pairs.push([set[i] ?? 0, set[i + 1] ?? 0]);
  pairs.sort(([a], [b]) => a - b);
  const out: number[] = [];
  for (const [from, to] of pairs) {
    const last = out.length - 1;
    if (last > 0 && from <= (out[last] ?? 0) + 1) out[last] = Math.max(out[last] ?? 0, to);
    else out.push(from, to);
  }
  return out;
}

export function intersectionOf(a: PortSet, b: PortSet): PortSet {
  const out: number[] = [];
  for (let i = 0, k = 0; i < a.length && k < b.length; ) {
    const [aEnd = 0, bEnd = 0] = [a[i + 1], b[k + 1]];
    const from = Math.max(a[i] ?? 0, b[k] ?? 0);
    const to = Math.min(aEnd, bEnd);
    if (from <= to) out.push(from, to);
    if (aEnd < bEnd) i += 2;
    else k += 2;
  }
  return out;
}

export function hasPlace(set: PortSet, place: number): boolean {
  for (let i = 0; i < set.length; i += 2) {
    if (place < (set[i] ?? 0)) return false;
    if (place <= (set[i + 1] ?? 0)) return true;
  }
  return false;
}

export const isEmptySet = (set: PortSet): boolean => set.length === 0;
export const isEverything = (set: PortSet): boolean =>
  set.length === 2 && set[0] === 0 && set[1] === otherPlace;

export interface PortInterval {
  /** Null: every protocol without ports. */
  readonly protocol: PolicyProtocol | null;
  readonly from: number;
  readonly to: number;
}

/** The intervals of each protocol by themselves. */
export function intervalsOf(set: PortSet): PortInterval[] {
  const out: PortInterval[] = [];
  for (let i = 0; i < set.length; i += 2) {
    const [from = 0, to = 0] = [set[i], set[i + 1]];
    for (const [index, protocol] of policyProtocols.entries()) {
      const base = index * portsOfProtocol;
      const first = Math.max(from, base);
      const last = Math.min(to, base + portsOfProtocol - 1);
      if (first <= last) out.push({ protocol, from: first - base, to: last - base });
    }
    if (to >= otherPlace) out.push({ protocol: null, from: 0, to: 0 });
  }
  return out;
}

/** `TCP 80, 443, 8000-8080; UDP 53`; `everything`; `nothing`. */
export function portsText(set: PortSet): string {
  if (isEverything(set)) return 'everything';
  const intervals = intervalsOf(set);
  const parts = policyProtocols.flatMap((protocol) => {
    const own = intervals.filter((interval) => interval.protocol === protocol);
    if (own.length === 0) return [];
    // Port 0 is no port: all from 1 on are all.
    const isWhole = own.some(({ from, to }) => from <= 1 && to === portsOfProtocol - 1);
    const ports = own.map(({ from, to }) => (from === to ? `${from}` : `${from}-${to}`));
    return [isWhole ? protocol : `${protocol} ${ports.join(', ')}`];
  });
  if (intervals.some(({ protocol }) => protocol === null)) parts.push('other protocols');
  return parts.length === 0 ? 'nothing' : parts.join('; ');
}

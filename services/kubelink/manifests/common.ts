/** What the conversions of all kinds of objects share: names, times, addresses, and which labels are carried. */

import type { AddressInterval } from '../../../lib/inventory/events.ts';
import { formatAddress, parseAddress, parseCidr } from '../../../lib/net/address.ts';
import { FieldError } from '../validate.ts';
import type { Metadata } from './objects.ts';

/** What a conversion needs to know beside the object. */
export interface ConversionContext {
  readonly cluster: string;
  readonly carry: CarryRules;
  /** Time of the reading, ms: the end of what has ended at an unknown time. */
  readonly nowMs: number;
}

export interface CarryRules {
  label(key: string): boolean;
  annotation(key: string): boolean;
}

function matcher(patterns: readonly string[]): (key: string) => boolean {
  const exact = new Set(patterns.filter((pattern) => !pattern.endsWith('*')));
  const prefixes = patterns.filter((pattern) => pattern.endsWith('*')).map((pattern) => pattern.slice(0, -1));
  return (key) => exact.has(key) || prefixes.some((prefix) => key.startsWith(prefix));
}

/** Labels are carried unless dropped; annotations are dropped unless carried. A `*` at the end stands for any rest. */
export function carryRules(
  droppedLabels: readonly string[],
  carriedAnnotations: readonly string[],
): CarryRules {
  const dropped = matcher(droppedLabels);
  return { label: (key) => !dropped(key), annotation: matcher(carriedAnnotations) };
}

type Nullable<T> = T | null | undefined;

function pick(map: Nullable<Record<string, string>>, keep: (key: string) => boolean): Record<string, string> {
  const kept = Object.entries(map ?? {}).filter(([key]) => keep(key));
  return Object.fromEntries(kept.sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** Labels and annotations of an object, as they are published. */
export function carried(
  metadata: Metadata,
  rules: CarryRules,
): { labels: Record<string, string>; annotations: Record<string, string> } {
  return {
    labels: pick(metadata.labels, rules.label),
    annotations: pick(metadata.annotations, rules.annotation),
  };
}

/** Namespace of a namespaced object; what kubectl would use where none is named. */
export function namespaceOf(metadata: Metadata): string {
  return metadata.namespace || 'default';
}

/** The uid, or for a hand-written manifest the name: as stable as that object can be. */
export function uidOf(metadata: Metadata, name: string): string {
  return metadata.uid || name;
}

/** Ms since the epoch; 0 where the object does not say. @throws {FieldError} where the text is no time. */
export function timeOf(text: Nullable<string>, field: string): number {
  if (text === undefined || text === null || text === '') return 0;
  const timeMs = Date.parse(text);
  if (!Number.isFinite(timeMs) || timeMs < 0)
    throw new FieldError(field, `"${text}" is not an RFC 3339 time`);
  return timeMs;
}

/** Kubernetes cuts times to the second: an end lies somewhere in it, so the interval lasts until the next. */
export function endOf(text: Nullable<string>, field: string): number {
  const timeMs = timeOf(text, field);
  return timeMs > 0 && timeMs % 1000 === 0 ? timeMs + 1000 : timeMs;
}

/** The address in its one canonical text. @throws {FieldError} where it is no address. */
export function canonicalAddress(text: string, field: string): string {
  const bytes = parseAddress(text);
  if (bytes === null) throw new FieldError(field, `"${text}" is not an IP address`);
  return formatAddress(bytes);
}

/** @throws {FieldError} where the text is no CIDR. */
export function checkedCidr(text: string, field: string): string {
  if (parseCidr(text) === null) throw new FieldError(field, `"${text}" is not a CIDR such as 10.0.0.0/8`);
  return text;
}

/** An interval for each distinct address. `untilMs` 0 leaves it open. */
export function intervals(
  addresses: readonly { readonly ip: string; readonly network: string }[],
  sinceMs: number,
  untilMs: number,
): AddressInterval[] {
  const distinct = new Map(addresses.map((address) => [`${address.network} ${address.ip}`, address]));
  return [...distinct.values()].map(({ ip, network }) => {
    if (untilMs === 0) return { ip, network, sinceMs };
    return { ip, network, sinceMs: Math.min(sinceMs, untilMs), untilMs };
  });
}

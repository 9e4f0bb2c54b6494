/** A filter as conditions: those on rows before they are summed, and those on what is known only after the labels are joined. */
import { type FlowFilter, severities } from '../filters.ts';
import type { Bindings } from './bindings.ts';
import { identitiesMeeting } from './identities.ts';

function within(column: string, span: { first: string; last: string }, bindings: Bindings): string {
  return `${column} BETWEEN ${bindings.bind('IPv6', span.first)} AND ${bindings.bind('IPv6', span.last)}`;
}

/** Conditions on columns that `flows` and the rollups share (addresses: `flows` only), without the time. */
export function rowConditions(filter: FlowFilter, bindings: Bindings): string[] {
  const out: string[] = [];
  const equal = (
    column: string,
    type: 'String' | 'UInt16' | 'UInt8' | 'UInt64',
    value: string | number | null,
  ): void => {
    if (value !== null) out.push(`${column} = ${bindings.bind(type, value)}`);
  };
  equal('verdict', 'String', filter.verdict);
  equal('reason', 'String', filter.reason);
  equal('dst_port', 'UInt16', filter.port);
  equal('protocol', 'UInt8', filter.protocol);
  equal('rule', 'UInt64', filter.rule);
  equal('src_identity', 'UInt64', filter.sourceIdentity);
  equal('dst_identity', 'UInt64', filter.destinationIdentity);
  if (filter.source.length > 0) out.push(`src_identity IN ${identitiesMeeting(filter.source, bindings)}`);
  if (filter.destination.length > 0)
    out.push(`dst_identity IN ${identitiesMeeting(filter.destination, bindings)}`);
  // All terms are asked of one and the same end.
  if (filter.either.length > 0) {
    const ids = identitiesMeeting(filter.either, bindings);
    out.push(`(src_identity IN ${ids} OR dst_identity IN ${ids})`);
  }
  if (filter.address !== null) {
    out.push(
      `(${within('src_ip', filter.address, bindings)} OR ${within('dst_ip', filter.address, bindings)})`,
    );
  }
  if (filter.sourceAddress !== null) out.push(`(${within('src_ip', filter.sourceAddress, bindings)})`);
  if (filter.destinationAddress !== null)
    out.push(`(${within('dst_ip', filter.destinationAddress, bindings)})`);
  return out;
}

/** Conditions on the columns `direction` and `severity`; severity asks for that much or more. */
export function labelledConditions(filter: FlowFilter, bindings: Bindings): string[] {
  const out: string[] = [];
  if (filter.direction !== null) out.push(`direction = ${bindings.bind('String', filter.direction)}`);
  if (filter.severity !== null) {
    out.push(`severity >= ${bindings.bind('UInt8', severities.indexOf(filter.severity))}`);
  }
  return out;
}

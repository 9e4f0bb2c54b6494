/** Leaves out what the configuration does not want reported. */
import type { ConnectionReport } from './connections.ts';
import { cidrMatcher, parseCidrs } from './own-addresses.ts';

export interface ExcludeSettings {
  /** Destination ports, before or after NAT. */
  readonly excludePorts: readonly number[];
  readonly excludeCidrs: readonly string[];
}

/** @throws {Error} where a text is no CIDR. */
export function excluder(settings: ExcludeSettings): (report: ConnectionReport) => boolean {
  const ports = new Set(settings.excludePorts);
  const isInBlock = cidrMatcher(parseCidrs('agent.excludeCidrs', settings.excludeCidrs));
  return ({ ends }) =>
    ports.has(ends.destinationPort) ||
    (ends.original !== null && (ports.has(ends.original.port) || isInBlock(ends.original.address))) ||
    isInBlock(ends.source) ||
    isInBlock(ends.destination);
}

/** What a source tells about connections, in one form for conntrack and procfs. */
import type { State } from '../../schemas/closed-lists.ts';

/** Who talks to whom; addresses are text as `lib/net/address.ts` formats it. */
export interface Ends {
  /** IP protocol number. */
  readonly protocol: number;
  readonly source: string;
  readonly sourcePort: number;
  /** After NAT. */
  readonly destination: string;
  readonly destinationPort: number;
  /** Before NAT; `null` where nothing was translated. */
  readonly original: { readonly address: string; readonly port: number } | null;
  /** ICMP type * 256 + code; 0 otherwise. */
  readonly flags: number;
}

/** Totals since the connection began. */
export interface Counters {
  readonly bytesForward: number;
  readonly bytesReverse: number;
  readonly packetsForward: number;
  readonly packetsReverse: number;
}

/** Uids of the pods at both ends, as far as this host knows them of its own processes; empty where not. */
export interface PodHints {
  readonly source: string;
  readonly destination: string;
}

export const noHints: PodHints = { source: '', destination: '' };

export interface ConnectionEvent {
  /**
   * `begin`: seen to open. `update`: its state or process is news. `seen`: found in a dump of open connections.
   * `end`: gone.
   */
  readonly kind: 'begin' | 'update' | 'seen' | 'end';
  /** Names the connection among those of its time. */
  readonly key: string;
  /** When the source says so, ms since the epoch. */
  readonly timeMs: number;
  readonly ends: Ends;
  /** `unknown` where the source does not say. */
  readonly state: State;
  readonly counters: Counters | null;
  /** How long it has existed, ms (whole seconds, rounded down); `null` where the source does not know. */
  readonly ageMs: number | null;
  /** Process on this host's side, or empty. */
  readonly processName: string;
  readonly hints: PodHints;
}

/** Marks the dump of all open connections, so that those whose end was missed are noticed. */
export interface DumpEvent {
  readonly kind: 'dump-begin' | 'dump-end' | 'dump-failed';
  readonly timeMs: number;
}

export type FlowEvent = ConnectionEvent | DumpEvent;

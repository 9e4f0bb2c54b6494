/**
 * Reads the lines of `conntrack -E -o extended,timestamp,id` and `conntrack -L -o extended,id` (conntrack-tools 1.4).
 * A line is: [time] [EVENT] family number protocol number timeout state? tuple [UNREPLIED]? tuple [ASSURED]? rest.
 * Each tuple is `src= dst=` with `sport= dport=` or `type= code= id=`, and `packets= bytes=` where accounting is on.
 */
import type { State } from '../../../schemas/closed-lists.ts';
import { type ConnectionEvent, type Counters, type Ends, noHints } from '../flow-event.ts';

export interface Tuple {
  source: string;
  destination: string;
  sourcePort: number;
  destinationPort: number;
  /** -1 where the protocol has none. */
  icmpType: number;
  icmpCode: number;
  /** -1 where the line has no counters. */
  packets: number;
  bytes: number;
}

export interface ConntrackLine {
  readonly kind: 'new' | 'update' | 'destroy' | 'entry';
  /** Time of the event, ms since the epoch; `null` in a dump. */
  readonly timeMs: number | null;
  readonly protocol: number;
  /** State in the kernel's words (ESTABLISHED), or empty. */
  readonly stateText: string;
  /** The other side never answered. */
  readonly unreplied: boolean;
  readonly original: Tuple;
  readonly reply: Tuple;
  /** Age in whole seconds (delta-time); `null` without `nf_conntrack_timestamp`. */
  readonly ageSeconds: number | null;
  /** The kernel's id of the entry; empty where the line has none. */
  readonly id: string;
}

const kinds: Readonly<Record<string, ConntrackLine['kind']>> = {
  '[NEW]': 'new',
  '[UPDATE]': 'update',
  '[DESTROY]': 'destroy',
};

export const protocolNumbers = { icmp: 1, tcp: 6, udp: 17, icmpv6: 58, sctp: 132 } as const;

function emptyTuple(): Tuple {
  return {
    source: '',
    destination: '',
    sourcePort: 0,
    destinationPort: 0,
    icmpType: -1,
    icmpCode: -1,
    packets: -1,
    bytes: -1,
  };
}

/** Everything of a line behind its `src=`. */
interface Tail {
  readonly original: Tuple;
  readonly reply: Tuple;
  unreplied: boolean;
  ageSeconds: number | null;
  id: string;
}

function setField(tail: Tail, tuple: Tuple, seen: { icmpId: boolean }, name: string, value: string): void {
  switch (name) {
    case 'src':
      tuple.source = value;
      break;
    case 'dst':
      tuple.destination = value;
      break;
    case 'sport':
      tuple.sourcePort = Number(value);
      break;
    case 'dport':
      tuple.destinationPort = Number(value);
      break;
    case 'type':
      tuple.icmpType = Number(value);
      break;
    case 'code':
      tuple.icmpCode = Number(value);
      break;
    case 'packets':
      tuple.packets = Number(value);
      break;
    case 'bytes':
      tuple.bytes = Number(value);
      break;
    case 'delta-time':
      tail.ageSeconds = Number(value);
      break;
    case 'id':
      // In an ICMP tuple the first `id` is the echo's, the last one on the line the entry's.
      if (tuple.icmpType >= 0 && !seen.icmpId) seen.icmpId = true;
      else tail.id = value;
      break;
    default:
      break;
  }
}

function parseTail(text: string): Tail | null {
  const tail: Tail = {
    original: emptyTuple(),
    reply: emptyTuple(),
    unreplied: false,
    ageSeconds: null,
    id: '',
  };
  let tuple = tail.original;
  let seen = { icmpId: false };
  for (const token of text.split(' ')) {
    if (token === '[UNREPLIED]') {
      tail.unreplied = true;
      continue;
    }
    const equals = token.indexOf('=');
    if (equals < 0) continue;
    const name = token.slice(0, equals);
    if (name === 'src' && tuple.source !== '') {
      if (tuple === tail.reply) return null;
      tuple = tail.reply;
      seen = { icmpId: false };
    }
    setField(tail, tuple, seen, name, token.slice(equals + 1));
  }
  return tail.reply.source === '' || tail.original.destination === '' ? null : tail;
}

/** Reads one line; `null` for anything that is no connection (other programs' messages, a cut line). */
export function parseConntrackLine(line: string): ConntrackLine | null {
  const tuples = line.indexOf('src=');
  if (tuples < 0) return null;
  const words = line.slice(0, tuples).trim().split(/\s+/);
  let at = 0;
  let timeMs: number | null = null;
  const stamp = /^\[(\d+)\.(\d{6})\]$/.exec(words[at] ?? '');
  if (stamp !== null) {
    timeMs = Number(stamp[1]) * 1000 + Math.floor(Number(stamp[2]) / 1000);
    at++;
  }
  const kind = kinds[words[at] ?? ''];
  if (kind !== undefined) at++;
  const family = words[at];
  if (family !== 'ipv4' && family !== 'ipv6') return null;
  const protocol = Number(words[at + 3]);
  if (!Number.isInteger(protocol) || protocol < 0 || protocol > 255) return null;
  // Behind the protocol come the seconds left and, with some protocols, the state.
  const last = words.length > at + 4 ? (words.at(-1) ?? '') : '';
  const stateText = /^[A-Z][A-Z0-9_]*$/.test(last) ? last : '';
  const tail = parseTail(line.slice(tuples));
  if (tail === null) return null;
  return {
    kind: kind ?? 'entry',
    timeMs,
    protocol,
    stateText,
    unreplied: tail.unreplied,
    original: tail.original,
    reply: tail.reply,
    ageSeconds: tail.ageSeconds,
    id: tail.id,
  };
}

/** The kernel's states of TCP and SCTP (nf_conntrack) in our words, while the entry lives. */
const liveStates: Readonly<Record<string, State>> = {
  NONE: 'new',
  SYN_SENT: 'new',
  SYN_SENT2: 'new',
  SYN_RECV: 'new',
  ESTABLISHED: 'open',
  FIN_WAIT: 'open',
  CLOSE_WAIT: 'open',
  LAST_ACK: 'open',
  TIME_WAIT: 'closed',
  CLOSE: 'closed',
  COOKIE_WAIT: 'new',
  COOKIE_ECHOED: 'new',
  HEARTBEAT_SENT: 'open',
  HEARTBEAT_ACKED: 'open',
  SHUTDOWN_SENT: 'open',
  SHUTDOWN_RECD: 'open',
  SHUTDOWN_ACK_SENT: 'closed',
  CLOSED: 'closed',
};

/** How a connection ended: of those that were seen to close, which state the entry died in. */
const closingStates: ReadonlySet<string> = new Set([
  'FIN_WAIT',
  'CLOSE_WAIT',
  'LAST_ACK',
  'TIME_WAIT',
  'CLOSE',
  'SHUTDOWN_SENT',
  'SHUTDOWN_RECD',
  'SHUTDOWN_ACK_SENT',
  'CLOSED',
]);

function endState(line: ConntrackLine): State {
  const connectionless = line.protocol !== protocolNumbers.tcp && line.protocol !== protocolNumbers.sctp;
  if (line.unreplied) {
    // A reset that answers a SYN destroys the entry and counts as the reply's one packet.
    const reset =
      line.protocol === protocolNumbers.tcp && (line.stateText === 'CLOSE' || line.reply.packets > 0);
    return reset ? 'refused' : 'timed_out';
  }
  if (connectionless) return 'closed';
  // Older kernels don't say in which state an entry died: the table knows the last one.
  if (line.stateText === '') return 'unknown';
  return closingStates.has(line.stateText) ? 'closed' : 'timed_out';
}

/** State of the connection as far as this one line tells. */
export function stateOf(line: ConntrackLine): State {
  if (line.kind === 'destroy') return endState(line);
  if (line.unreplied) return 'new';
  return line.stateText === '' ? 'open' : (liveStates[line.stateText] ?? 'open');
}

function endsOf(line: ConntrackLine): Ends {
  const { original, reply } = line;
  const translated =
    original.destination !== reply.source ||
    (original.destinationPort !== reply.sourcePort && original.icmpType < 0);
  // ICMP has no ports: its type and code stand in their place, as in IPFIX, so that rules can speak of them.
  const icmp = original.icmpType < 0 ? null : original.icmpType * 256 + Math.max(0, original.icmpCode);
  return {
    protocol: line.protocol,
    source: original.source,
    sourcePort: original.sourcePort,
    destination: reply.source,
    destinationPort: icmp ?? reply.sourcePort,
    original: translated ? { address: original.destination, port: icmp ?? original.destinationPort } : null,
    flags: icmp ?? 0,
  };
}

/** Source before and after translation where the two differ (masquerade), else `null`. */
export function translatedSource(line: ConntrackLine): { address: string; port: number } | null {
  const { original, reply } = line;
  const differs =
    reply.destination !== original.source ||
    (reply.destinationPort !== original.sourcePort && original.icmpType < 0);
  return differs ? { address: reply.destination, port: reply.destinationPort } : null;
}

function countersOf(line: ConntrackLine): Counters | null {
  const { original, reply } = line;
  if (original.packets < 0 || reply.packets < 0) return null;
  return {
    bytesForward: original.bytes,
    bytesReverse: reply.bytes,
    packetsForward: original.packets,
    packetsReverse: reply.packets,
  };
}

const eventKinds = { new: 'begin', update: 'update', destroy: 'end', entry: 'seen' } as const;

/** The event a line stands for; `nowMs` is used where the line has no time of its own. */
export function conntrackEvent(line: ConntrackLine, nowMs: number): ConnectionEvent {
  const { original } = line;
  return {
    kind: eventKinds[line.kind],
    // The id alone is a 32-bit hash, which collides on a busy node; the tuple alone repeats between zones.
    key: `${line.id} ${line.protocol} ${original.source} ${original.sourcePort} ${original.destination} ${original.destinationPort} ${original.icmpType}`,
    timeMs: line.timeMs ?? nowMs,
    ends: endsOf(line),
    state: stateOf(line),
    counters: countersOf(line),
    ageMs: line.ageSeconds === null ? null : line.ageSeconds * 1000,
    processName: '',
    // The kernel's table names no process.
    hints: noHints,
  };
}

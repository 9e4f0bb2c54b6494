/**
 * Turns the socket tables, read again and again, into connections that begin, change and end. Both ends of a loopback
 * connection are one connection. A TIME_WAIT row shows a connection that came and went between two reads.
 */
import type { State } from '../../../schemas/closed-lists.ts';
import { type ConnectionEvent, type Ends, noHints, type PodHints } from '../flow-event.ts';
import { type Endpoint, parseEndpoints, socketStates } from './parse.ts';
import type { SocketOwner } from './processes.ts';

export type SocketProtocol = 'tcp' | 'udp';

const protocolNumber = { tcp: 6, udp: 17 } as const;

/** How long a port counts as listening after its socket is gone, ms: connections outlive it. */
const listenMemoryMs = 60_000;

/** A connection attempt that lasted this long before it went was not refused but never answered, ms. */
const attemptTimeoutMs = 20_000;

/** A new connection waits this many passes for its process, at most. */
const maxHeldPasses = 2;

/** Texts of listening sockets that are remembered, at most. */
const maxListeningTexts = 4096;

interface Connection {
  readonly key: string;
  readonly ends: Ends;
  /** 0: it was there at the first pass already. */
  readonly beganMs: number;
  /** Both ends are sockets of this host. */
  readonly isLoopback: boolean;
  /** This host opened it. */
  readonly isClient: boolean;
  rowCount: number;
  state: State;
  processName: string;
  hints: PodHints;
  isNew: boolean;
  changed: boolean;
  /** Socket whose process is the connection's; 0: none yet. */
  inode: number;
  /** Passes for which its begin was held back, in hope of the process. */
  heldCount: number;
}

interface Row {
  readonly connection: Connection;
  /** This row is the end whose process is reported. */
  readonly isReported: boolean;
  /** Its socket opened the connection. */
  readonly isSource: boolean;
  inode: number;
  state: number;
  pass: number;
}

interface NewRow {
  readonly key: string;
  readonly protocol: SocketProtocol;
  readonly endpoints: string;
  readonly state: number;
  readonly inode: number;
}

const rank: Readonly<Record<State, number>> = {
  unknown: 0,
  new: 1,
  open: 2,
  closed: 3,
  timed_out: 3,
  refused: 3,
};

function stateOf(socketState: number): State {
  switch (socketState) {
    case socketStates.synSent:
    case socketStates.synRecv:
    case socketStates.newSynRecv:
      return 'new';
    case socketStates.timeWait:
    case socketStates.close:
      return 'closed';
    default:
      return 'open';
  }
}

function isBeginning(socketState: number): boolean {
  return stateOf(socketState) === 'new' || socketState === socketStates.established;
}

/** Which ports this host serves, on which addresses. */
class Listeners {
  readonly #untilMs = new Map<string, number>();

  add(protocol: SocketProtocol, local: Endpoint, nowMs: number): void {
    const anywhere = local.address === '0.0.0.0' || local.address === '::';
    this.#untilMs.set(`${protocol} ${anywhere ? '*' : local.address} ${local.port}`, nowMs + listenMemoryMs);
  }

  has(protocol: SocketProtocol, { address, port }: Endpoint): boolean {
    return this.#untilMs.has(`${protocol} * ${port}`) || this.#untilMs.has(`${protocol} ${address} ${port}`);
  }

  expire(nowMs: number): void {
    for (const [key, untilMs] of this.#untilMs) if (untilMs < nowMs) this.#untilMs.delete(key);
  }
}

export interface SocketTableOptions {
  readonly isOwn: (address: string) => boolean;
  /** A socket appeared (or went) whose process should be found (or no longer). */
  readonly onSocket: (inode: number) => void;
  readonly onSocketGone: (inode: number) => void;
  /** Whether the process of a socket is still being looked for. */
  readonly isSought: (inode: number) => boolean;
}

export class SocketTable {
  readonly #options: SocketTableOptions;
  readonly #rows = new Map<string, Row>();
  readonly #connections = new Map<string, Connection>();
  readonly #byInode = new Map<number, Row>();
  readonly #listeners = new Listeners();
  /** Texts of listening rows, so that only new ones are parsed. */
  readonly #listening = new Map<string, Endpoint>();
  #newRows: NewRow[] = [];
  #pass = 0;
  #connectionNumber = 0;
  #openCount = 0;

  constructor(options: SocketTableOptions) {
    this.#options = options;
  }

  get size(): number {
    return this.#connections.size;
  }

  /** TCP connections seen since the first pass, each end on this host counted: to hold against the kernel's count. */
  get openCount(): number {
    return this.#openCount;
  }

  /** One pass over all tables: `beginPass`, `row` for every row, `endPass`, `emitChanges`. */
  beginPass(): void {
    this.#pass++;
    this.#newRows = [];
  }

  row(protocol: SocketProtocol, endpoints: string, state: number, inode: number, nowMs: number): void {
    // An unconnected UDP socket is in state CLOSE, and serves whoever sends to it.
    if (state === socketStates.listen || (protocol === 'udp' && state === socketStates.close)) {
      let local = this.#listening.get(endpoints);
      if (local === undefined) {
        local = parseEndpoints(endpoints).local;
        this.#listening.set(endpoints, local);
      }
      this.#listeners.add(protocol, local, nowMs);
      return;
    }
    const key = `${protocol} ${endpoints}`;
    const known = this.#rows.get(key);
    if (known === undefined || this.#isAnother(known, state, inode)) {
      this.#newRows.push({ key, protocol, endpoints, state, inode });
      return;
    }
    known.pass = this.#pass;
    if (known.inode !== inode && inode !== 0) this.#setInode(known, inode);
    if (known.state !== state) {
      known.state = state;
      this.#raise(known.connection, stateOf(state));
    }
  }

  /** Instead of reading the rows of a protocol again: all are as they were. */
  keep(protocol: SocketProtocol): void {
    for (const [key, row] of this.#rows) if (key.startsWith(protocol)) row.pass = this.#pass;
  }

  #isAnother(known: Row, state: number, inode: number): boolean {
    if (known.inode !== 0 && inode !== 0 && known.inode !== inode) return true;
    return stateOf(known.state) === 'closed' && isBeginning(state);
  }

  #setInode(row: Row, inode: number): void {
    row.inode = inode;
    if (row.isReported) row.connection.inode = inode;
    this.#byInode.set(inode, row);
    this.#options.onSocket(inode);
  }

  #raise(connection: Connection, state: State): void {
    if (rank[state] <= rank[connection.state]) return;
    this.#countOpen(connection, connection.state, state);
    connection.state = state;
    connection.changed = true;
  }

  /** The kernel counts an active open with the first SYN and a passive one with the handshake. */
  #countOpen(connection: Connection, before: State, state: State): void {
    if (connection.ends.protocol !== protocolNumber.tcp || connection.beganMs === 0) return;
    const opens = (of: State): number => {
      const active = (connection.isClient || connection.isLoopback) && rank[of] >= rank.new;
      const passive = (!connection.isClient || connection.isLoopback) && rank[of] >= rank.open;
      return Number(active) + Number(passive);
    };
    this.#openCount += opens(state) - opens(before);
  }

  /** Ends a pass and tells what is gone; after the new sockets were named, `emitChanges` tells the rest. */
  endPass(nowMs: number, emit: (event: ConnectionEvent) => void): void {
    for (const row of this.#newRows) this.#dropRow(row.key, nowMs, emit);
    for (const row of this.#newRows) this.#addRow(row, nowMs);
    for (const [key, row] of this.#rows) if (row.pass !== this.#pass) this.#dropRow(key, nowMs, emit);
    this.#listeners.expire(nowMs);
    // What still listens is parsed anew in the next pass.
    if (this.#listening.size > maxListeningTexts) this.#listening.clear();
  }

  owned(inode: number, { name, podUid }: SocketOwner): void {
    const row = this.#byInode.get(inode);
    if (row === undefined) return;
    const { connection } = row;
    if (row.isReported && connection.processName !== name) {
      connection.processName = name;
      connection.changed = true;
    }
    const end = row.isSource ? 'source' : 'destination';
    if (podUid !== '' && connection.hints[end] !== podUid) {
      connection.hints = { ...connection.hints, [end]: podUid };
      connection.changed = true;
    }
  }

  /** Tells what is new since the last call. */
  emitChanges(nowMs: number, emit: (event: ConnectionEvent) => void): void {
    for (const connection of this.#connections.values()) {
      if (connection.isNew) {
        if (this.#waitsForName(connection)) continue;
        this.#emitNew(connection, nowMs, emit);
      } else if (connection.changed) {
        emit(this.#event('update', connection, nowMs));
      }
      connection.changed = false;
    }
  }

  #waitsForName(connection: Connection): boolean {
    const isSought = connection.inode !== 0 && this.#options.isSought(connection.inode);
    // What the first pass shows is told at once, for only then it is known to be older.
    return isSought && connection.beganMs !== 0 && connection.heldCount++ < maxHeldPasses;
  }

  #emitNew(connection: Connection, nowMs: number, emit: (event: ConnectionEvent) => void): void {
    connection.isNew = false;
    if (connection.beganMs === 0) emit(this.#event('seen', connection, nowMs));
    else emit(this.#event('begin', connection, connection.beganMs));
  }

  #event(kind: ConnectionEvent['kind'], connection: Connection, timeMs: number): ConnectionEvent {
    return {
      kind,
      key: connection.key,
      timeMs,
      ends: connection.ends,
      state: connection.state,
      counters: null,
      ageMs: null,
      processName: connection.processName,
      hints: connection.hints,
    };
  }

  #addRow(row: NewRow, nowMs: number): void {
    const { local, remote } = parseEndpoints(row.endpoints);
    if (remote.port === 0) return;
    const isLoopback = this.#options.isOwn(remote.address) && this.#options.isOwn(local.address);
    const isClient = this.#isClient(row.protocol, local, remote, isLoopback);
    const [source, destination] = isClient ? [local, remote] : [remote, local];
    const pair = `${row.protocol} ${source.address} ${source.port} ${destination.address} ${destination.port}`;
    const state = stateOf(row.state);
    let connection = this.#connections.get(pair);
    if (connection === undefined) {
      connection = {
        key: `${pair} ${++this.#connectionNumber}`,
        ends: {
          protocol: protocolNumber[row.protocol],
          source: source.address,
          sourcePort: source.port,
          destination: destination.address,
          destinationPort: destination.port,
          original: null,
          flags: 0,
        },
        beganMs: this.#pass === 1 ? 0 : nowMs,
        isLoopback,
        isClient,
        rowCount: 0,
        state: 'unknown',
        processName: '',
        hints: noHints,
        isNew: true,
        changed: false,
        inode: 0,
        heldCount: 0,
      };
      this.#connections.set(pair, connection);
    }
    this.#raise(connection, state);
    connection.rowCount++;
    const added: Row = {
      connection,
      isReported: isClient || !isLoopback,
      isSource: isClient,
      inode: 0,
      state: row.state,
      pass: this.#pass,
    };
    this.#rows.set(row.key, added);
    if (row.inode !== 0) this.#setInode(added, row.inode);
  }

  #isClient(protocol: SocketProtocol, local: Endpoint, remote: Endpoint, isLoopback: boolean): boolean {
    const serves = this.#listeners.has(protocol, local);
    if (!isLoopback) return !serves;
    const remoteServes = this.#listeners.has(protocol, remote);
    // Neither or both: the lower port is the service's.
    return serves === remoteServes ? local.port > remote.port : remoteServes;
  }

  #dropRow(key: string, nowMs: number, emit: (event: ConnectionEvent) => void): void {
    const row = this.#rows.get(key);
    if (row === undefined) return;
    this.#rows.delete(key);
    if (row.inode !== 0) {
      this.#byInode.delete(row.inode);
      this.#options.onSocketGone(row.inode);
    }
    const { connection } = row;
    if (--connection.rowCount > 0) return;
    const pair = connection.key.slice(0, connection.key.lastIndexOf(' '));
    if (this.#connections.get(pair) === connection) this.#connections.delete(pair);
    if (connection.isNew) this.#emitNew(connection, nowMs, emit);
    const tried = connection.state === 'new';
    const lostMs = nowMs - connection.beganMs;
    const state: State = tried ? (lostMs >= attemptTimeoutMs ? 'timed_out' : 'unknown') : 'closed';
    emit({ ...this.#event('end', connection, nowMs), state });
  }
}

/**
 * The connections of this host: takes a source's events and gives, for each interval, one report for each connection
 * that has news. A connection counts as begun in exactly one report; bytes and packets are what came since the last.
 */
import type { State } from '../../schemas/closed-lists.ts';
import { type Checkpoint, connectionName, maxCheckpointConnections, type Reported } from './checkpoint.ts';
import type { ConnectionEvent, Counters, Ends, FlowEvent, PodHints } from './flow-event.ts';

/** What one report says of one connection. Times are ms since the epoch. */
export interface ConnectionReport {
  readonly ends: Ends;
  readonly startMs: number;
  readonly endMs: number;
  readonly bytesForward: number;
  readonly bytesReverse: number;
  readonly packetsForward: number;
  readonly packetsReverse: number;
  /** 1 in the first report of a connection, 0 in every other. */
  readonly connectionCount: 0 | 1;
  readonly state: State;
  readonly processName: string;
  readonly hints: PodHints;
}

export interface ConnectionTableOptions {
  readonly maxConnections: number;
  readonly quietReportMs: number;
  /** A connection waits this long for its first counters before it is reported without. */
  readonly counterWaitMs: number;
  /** When this agent began to look, ms since the epoch. */
  readonly observedSinceMs: number;
  /** Until when an earlier run of this agent reported; `null`: this host was never looked at before. */
  readonly reportedUntilMs: number | null;
  /** What that run had reported of the connections then open; `null`: not known, so their age decides. */
  readonly checkpoint: Checkpoint | null;
}

interface Connection {
  ends: Ends;
  startMs: number;
  createdMs: number;
  /** When it was closed or gone. */
  endMs: number | null;
  state: State;
  processName: string;
  hints: PodHints;
  counters: Counters;
  hasCounters: boolean;
  reported: Counters;
  reportedState: State | null;
  reportedMs: number;
  everReported: boolean;
  /** Its begin is still to be reported. */
  uncounted: boolean;
  /** Its `begin` was seen, so another one under the same key is another connection. */
  beginSeen: boolean;
  /** Number of the dump in which it was found last. */
  dumpNumber: number;
  missedDumpCount: number;
  /** Gone; kept (with the number of the dump then running) so that a dump cannot bring it back. */
  goneInDump: number | null;
}

const noCounters: Counters = { bytesForward: 0, bytesReverse: 0, packetsForward: 0, packetsReverse: 0 };

/** Dumps that must lack a connection before its end is taken for missed: one may have been read just before it began. */
const missedDumpLimit = 2;

function mergeHints(known: PodHints, heard: PodHints): PodHints {
  if (heard.source === '' && heard.destination === '') return known;
  return {
    source: heard.source === '' ? known.source : heard.source,
    destination: heard.destination === '' ? known.destination : heard.destination,
  };
}

function larger(a: Counters, b: Counters): Counters {
  return {
    bytesForward: Math.max(a.bytesForward, b.bytesForward),
    bytesReverse: Math.max(a.bytesReverse, b.bytesReverse),
    packetsForward: Math.max(a.packetsForward, b.packetsForward),
    packetsReverse: Math.max(a.packetsReverse, b.packetsReverse),
  };
}

function notBelow(counters: Counters, before: Counters): boolean {
  return counters.packetsForward >= before.packetsForward && counters.packetsReverse >= before.packetsReverse;
}

function moved(a: Counters, b: Counters): boolean {
  return a.packetsForward !== b.packetsForward || a.packetsReverse !== b.packetsReverse;
}

/** How a connection ended, when its last word does not say. */
function endStateAfter(last: State, said: State): State {
  if (said !== 'unknown') return said;
  if (last === 'closed' || last === 'refused') return last;
  return last === 'new' || last === 'open' ? 'timed_out' : 'unknown';
}

export class ConnectionTable {
  readonly #options: ConnectionTableOptions;
  readonly #connections = new Map<string, Connection>();
  /** Ended, no longer under their key (it was taken over, or there was no room), not yet reported. */
  #leftover: Connection[] = [];
  #dumpNumber = 0;
  #dumpRunning = false;
  #completeDumpCount = 0;
  #dumpBeganMs = 0;
  #untrackedCount = 0;
  #droppedCount = 0;

  constructor(options: ConnectionTableOptions) {
    this.#options = options;
  }

  get size(): number {
    return this.#connections.size;
  }

  /** Connections that found no room and are reported as a whole when they end. */
  get untrackedCount(): number {
    return this.#untrackedCount;
  }

  /** Connections that were lost here, for want of room. */
  get droppedCount(): number {
    return this.#droppedCount;
  }

  apply(event: FlowEvent): void {
    switch (event.kind) {
      case 'begin':
        this.#begin(event);
        break;
      case 'update':
        this.#update(event);
        break;
      case 'seen':
        this.#seen(event);
        break;
      case 'end':
        this.#end(event);
        break;
      case 'dump-begin':
        this.#dumpNumber++;
        this.#dumpRunning = true;
        this.#dumpBeganMs = event.timeMs;
        break;
      case 'dump-end':
        this.#dumpRunning = false;
        this.#completeDumpCount++;
        this.#noticeMissedEnds(event.timeMs);
        break;
      case 'dump-failed':
        this.#dumpRunning = false;
        break;
    }
  }

  #begin(event: ConnectionEvent): void {
    const existing = this.#connections.get(event.key);
    if (existing !== undefined && existing.goneInDump === null) {
      if (!existing.beginSeen && event.timeMs <= existing.createdMs) {
        // A dump was quicker than the event: it is new after all, and everything in its counters is.
        existing.beginSeen = true;
        existing.startMs = event.timeMs;
        if (!existing.everReported) {
          existing.uncounted = true;
          existing.reportedState = null;
          existing.reported = noCounters;
        }
        return;
      }
      this.#lost(existing, event.timeMs);
    }
    if (existing !== undefined) this.#makeWay(event.key, existing);
    const connection = this.#create(event, event.timeMs);
    connection.beginSeen = true;
    this.#keep(event.key, connection);
  }

  #update(event: ConnectionEvent): void {
    const connection = this.#connections.get(event.key);
    // Without its begin nothing tells how old it is; the next dump does.
    if (connection === undefined || connection.goneInDump !== null) return;
    this.#absorb(connection, event);
  }

  #seen(event: ConnectionEvent): void {
    let connection = this.#connections.get(event.key);
    if (connection === undefined) {
      connection = this.#createOlder(event);
      this.#keep(event.key, connection);
    } else if (connection.goneInDump === null) {
      this.#absorb(connection, event);
    }
    connection.dumpNumber = this.#dumpNumber;
    connection.missedDumpCount = 0;
  }

  #end(event: ConnectionEvent): void {
    let connection = this.#connections.get(event.key);
    if (connection !== undefined && connection.goneInDump !== null) return;
    if (connection === undefined) {
      connection = this.#createOlder(event);
      if (!this.#keep(event.key, connection)) this.#keepLeftover(connection);
    }
    if (event.counters !== null) this.#absorbCounters(connection, event.counters);
    this.#gone(connection, event.timeMs, event.state);
  }

  #create(event: ConnectionEvent, startMs: number): Connection {
    return {
      ends: event.ends,
      startMs,
      createdMs: Math.max(event.timeMs, startMs),
      endMs: event.state === 'closed' ? event.timeMs : null,
      state: event.state,
      processName: event.processName,
      hints: event.hints,
      counters: event.counters ?? noCounters,
      hasCounters: event.counters !== null,
      reported: noCounters,
      reportedState: null,
      reportedMs: startMs,
      everReported: false,
      uncounted: true,
      beginSeen: false,
      dumpNumber: 0,
      missedDumpCount: 0,
      goneInDump: null,
    };
  }

  /** A connection whose begin this run did not see: from before it, or the event was lost. */
  #createOlder(event: ConnectionEvent): Connection {
    const { observedSinceMs, reportedUntilMs, checkpoint } = this.#options;
    const firstLook = this.#completeDumpCount === 0;
    // Without an age: what the first dump shows is older than this run, what a later one shows is younger.
    const startMs = event.ageMs === null ? (firstLook ? 0 : event.timeMs) : event.timeMs - event.ageMs;
    const connection = this.#create(event, startMs);
    const reported = firstLook ? checkpoint?.get(connectionName(event.ends)) : undefined;
    if (reported !== undefined && notBelow(connection.counters, reported)) {
      connection.startMs = reportedUntilMs ?? observedSinceMs;
      this.#goOnFrom(connection, reported, reported.state);
      return connection;
    }
    if (startMs >= observedSinceMs) return connection;
    if (reportedUntilMs !== null && (checkpoint !== null || startMs > reportedUntilMs)) {
      // It began while nobody looked: all that it did is still to be told.
      connection.startMs = Math.min(event.timeMs, Math.max(startMs, reportedUntilMs));
      return connection;
    }
    // What it did before anyone looked belongs to no interval of ours.
    connection.startMs = Math.min(observedSinceMs, event.timeMs);
    const isKnown = reportedUntilMs !== null || event.state === 'closed';
    this.#goOnFrom(connection, connection.counters, isKnown ? event.state : null);
    return connection;
  }

  /** `reportedState`: as it was reported last; `null`: that it began is still to be reported. */
  #goOnFrom(connection: Connection, reported: Counters, reportedState: State | null): void {
    connection.reported = reported;
    connection.reportedMs = connection.startMs;
    connection.reportedState = reportedState;
    connection.uncounted = reportedState === null;
  }

  #keep(key: string, connection: Connection): boolean {
    if (this.#connections.size >= this.#options.maxConnections) {
      this.#untrackedCount++;
      return false;
    }
    this.#connections.set(key, connection);
    return true;
  }

  #keepLeftover(connection: Connection): void {
    if (this.#leftover.length >= this.#options.maxConnections) this.#droppedCount++;
    else this.#leftover.push(connection);
  }

  #makeWay(key: string, connection: Connection): void {
    this.#connections.delete(key);
    if (this.#hasNews(connection)) this.#keepLeftover(connection);
  }

  #absorb(connection: Connection, event: ConnectionEvent): void {
    if (event.counters !== null) this.#absorbCounters(connection, event.counters);
    if (event.processName !== '') connection.processName = event.processName;
    connection.hints = mergeHints(connection.hints, event.hints);
    // A dump may be older than the last event: nothing reopens.
    if (event.state === 'unknown' || connection.state === 'closed') return;
    if (connection.state === 'open' && event.state === 'new') return;
    connection.state = event.state;
    if (event.state === 'closed') connection.endMs = event.timeMs;
  }

  #absorbCounters(connection: Connection, counters: Counters): void {
    connection.counters = connection.hasCounters ? larger(connection.counters, counters) : counters;
    connection.hasCounters = true;
  }

  #gone(connection: Connection, timeMs: number, said: State): void {
    connection.goneInDump = this.#dumpNumber;
    if (connection.state === 'closed') return;
    connection.state = endStateAfter(connection.state, said);
    connection.endMs = Math.max(timeMs, connection.startMs);
  }

  #noticeMissedEnds(nowMs: number): void {
    for (const connection of this.#connections.values()) {
      if (connection.goneInDump !== null || connection.dumpNumber === this.#dumpNumber) continue;
      if (connection.createdMs >= this.#dumpBeganMs) continue;
      if (++connection.missedDumpCount < missedDumpLimit) continue;
      this.#lost(connection, nowMs);
    }
  }

  /** It is gone, and nobody saw how. */
  #lost(connection: Connection, timeMs: number): void {
    connection.goneInDump = this.#dumpNumber;
    if (connection.state === 'closed') return;
    connection.state = 'unknown';
    connection.endMs = Math.max(timeMs, connection.startMs);
  }

  #hasNews(connection: Connection): boolean {
    return (
      connection.uncounted ||
      connection.state !== connection.reportedState ||
      moved(connection.counters, connection.reported)
    );
  }

  /**
   * Calls `emit` for every connection with news. `source` says whether counters are to be expected: then a young
   * connection waits for its first ones.
   */
  report(nowMs: number, source: { hasCounters: boolean }, emit: (report: ConnectionReport) => void): void {
    for (const connection of this.#leftover) emit(this.#reportOf(connection, nowMs));
    this.#leftover = [];
    for (const [key, connection] of this.#connections) {
      const gone = connection.goneInDump !== null;
      if (this.#hasNews(connection)) {
        const waits =
          source.hasCounters &&
          !gone &&
          !connection.hasCounters &&
          nowMs - connection.createdMs < this.#options.counterWaitMs;
        if (!waits) emit(this.#reportOf(connection, nowMs));
      } else if (!gone && connection.state === 'open') {
        if (nowMs - connection.reportedMs >= this.#options.quietReportMs)
          emit(this.#reportOf(connection, nowMs));
      }
      if (gone && !(this.#dumpRunning && connection.goneInDump === this.#dumpNumber))
        this.#connections.delete(key);
    }
  }

  /** What was reported of the connections that are open; `null`: they are too many to keep. */
  checkpoint(): Checkpoint | null {
    if (this.#connections.size > maxCheckpointConnections) return null;
    const checkpoint = new Map<string, Reported>();
    for (const { ends, goneInDump, reportedState, reported } of this.#connections.values()) {
      if (goneInDump !== null || reportedState === null) continue;
      checkpoint.set(connectionName(ends), { ...reported, state: reportedState });
    }
    return checkpoint;
  }

  #reportOf(connection: Connection, nowMs: number): ConnectionReport {
    const { counters, reported } = connection;
    const startMs = connection.everReported ? connection.reportedMs : connection.startMs;
    const report: ConnectionReport = {
      ends: connection.ends,
      startMs,
      endMs: Math.max(startMs, connection.endMs ?? nowMs),
      bytesForward: counters.bytesForward - reported.bytesForward,
      bytesReverse: counters.bytesReverse - reported.bytesReverse,
      packetsForward: counters.packetsForward - reported.packetsForward,
      packetsReverse: counters.packetsReverse - reported.packetsReverse,
      connectionCount: connection.uncounted ? 1 : 0,
      state: connection.state,
      processName: connection.processName,
      hints: connection.hints,
    };
    connection.uncounted = false;
    connection.reported = counters;
    connection.reportedState = connection.state;
    connection.reportedMs = report.endMs;
    connection.everReported = true;
    return report;
  }
}

/** The agent's beat: each interval, what the source told becomes batches in the spool. */
import type { Logger } from 'pino';
import {
  type BatchHead,
  type BatchLimits,
  type EncodedPart,
  encodeParts,
  encodeReports,
  type ReporterIdentity,
} from './batcher.ts';
import { decodeCheckpoint, encodeCheckpoint } from './checkpoint.ts';
import type { ClockMeasure } from './clock.ts';
import { type ConnectionReport, ConnectionTable } from './connections.ts';
import type { AgentMetrics } from './metrics.ts';
import type { OwnAddresses } from './own-addresses.ts';
import type { FlowSource } from './sources/source.ts';
import type { Spool } from './spool/spool.ts';

export interface AgentOptions extends BatchLimits {
  readonly identity: ReporterIdentity;
  readonly bootId: string;
  readonly intervalMs: number;
  readonly heartbeatMs: number;
  readonly quietReportMs: number;
  readonly maxConnections: number;
  readonly isExcluded: (report: ConnectionReport) => boolean;
  readonly source: FlowSource;
  readonly spool: Spool;
  readonly ownAddresses: OwnAddresses;
  /** Addresses of the interfaces as they are now. */
  readonly readAddresses: () => string[];
  /** Called after each interval. */
  readonly onReported: () => void;
  readonly metrics: AgentMetrics;
  readonly log: Logger;
  readonly nowMs: () => number;
  /** What is known of this machine's clock for everything since a moment of the monotonic clock, ms. */
  readonly measureClock: (sinceMs: number) => ClockMeasure;
  /** The monotonic clock, ms. */
  readonly monotonicMs: () => number;
}

/** A connection waits for its first counters at least this long before it is reported without, ms. */
const minCounterWaitMs = 10_000;

export class Agent {
  readonly #options: AgentOptions;
  readonly #table: ConnectionTable;
  #timer: NodeJS.Timeout | null = null;
  #beat: Promise<void> = Promise.resolve();
  #observedFromMs: number;
  /** The same moment by the monotonic clock. */
  #monotonicFromMs: number;
  #lastBatchMs = 0;
  #shownTableDrops = 0;
  #toldSourceDrops = 0;
  /** Reports that no batch could hold. */
  #unfitCount = 0;
  /** Of those and of the table's drops, how many batches told of. */
  #toldOwnDrops = 0;
  #stopped = false;

  constructor(options: AgentOptions) {
    this.#options = options;
    this.#observedFromMs = options.nowMs();
    this.#monotonicFromMs = options.monotonicMs();
    this.#table = new ConnectionTable({
      maxConnections: options.maxConnections,
      quietReportMs: options.quietReportMs,
      counterWaitMs: Math.max(minCounterWaitMs, 2 * options.intervalMs),
      observedSinceMs: this.#observedFromMs,
      reportedUntilMs: options.spool.observedToMs,
      checkpoint: options.spool.note === null ? null : decodeCheckpoint(options.spool.note),
    });
  }

  async start(): Promise<void> {
    this.#options.ownAddresses.update(this.#options.readAddresses());
    await this.#options.source.start((event) => this.#table.apply(event));
    this.#schedule();
  }

  #schedule(): void {
    const { intervalMs, nowMs, log } = this.#options;
    const nextMs = Math.max(0, this.#observedFromMs + intervalMs - nowMs());
    this.#timer = setTimeout(() => {
      this.#beat = this.#report()
        .catch((error: unknown) => log.error({ err: error }, 'an interval could not be reported'))
        .then(() => {
          if (!this.#stopped) this.#schedule();
        });
    }, nextMs);
  }

  async #report(): Promise<void> {
    const { source, metrics, nowMs, ownAddresses, readAddresses } = this.#options;
    await source.refresh();
    ownAddresses.update(readAddresses());
    const observedToMs = nowMs();
    const reports: ConnectionReport[] = [];
    this.#table.report(observedToMs, source, (report) => {
      if (this.#options.isExcluded(report)) metrics.excludedFlows.inc();
      else reports.push(report);
    });
    this.#put(reports, observedToMs);
    metrics.connections.set(this.#table.size);
    metrics.untracked.set(this.#table.untrackedCount);
    metrics.dropped.inc({ cause: 'table-full' }, this.#table.droppedCount - this.#shownTableDrops);
    this.#shownTableDrops = this.#table.droppedCount;
    this.#options.onReported();
  }

  #put(reports: readonly ConnectionReport[], observedToMs: number): void {
    const { spool, metrics, heartbeatMs } = this.#options;
    const sourceDrops = this.#options.source.droppedCount() - this.#toldSourceDrops;
    const ownDrops = this.#table.droppedCount + this.#unfitCount - this.#toldOwnDrops;
    const spoolDrops = spool.pendingDropCount;
    const observedFromMs = this.#observedFromMs;
    this.#observedFromMs = observedToMs;
    const clock = this.#options.measureClock(this.#monotonicFromMs);
    this.#monotonicFromMs = this.#options.monotonicMs();
    const heartbeatDue = heartbeatMs > 0 && observedToMs - this.#lastBatchMs >= heartbeatMs;
    const hasNews = reports.length > 0 || sourceDrops + ownDrops + spoolDrops > 0;
    if (!hasNews && !heartbeatDue) return;
    const firstSequence = spool.nextSequence;
    const parts = this.#encode(reports, (number) => ({
      sequence: firstSequence + number,
      observedFromMs,
      observedToMs,
      sourceDroppedCount: number === 0 ? sourceDrops + ownDrops + spoolDrops : 0,
      clockOffsetMs: clock.offsetMs,
      clockErrorMs: clock.errorMs,
    }));
    if (parts.length === 0) return;
    metrics.dropped.inc({ cause: 'source' }, sourceDrops);
    this.#toldSourceDrops += sourceDrops;
    this.#toldOwnDrops += ownDrops;
    this.#lastBatchMs = observedToMs;
    spool.writeNote(firstSequence + parts.length - 1, encodeCheckpoint(this.#table.checkpoint()));
    parts.forEach(({ flowCount, bytes }, number) => {
      spool.append({
        flowCount,
        sourceDroppedCount: number === 0 ? sourceDrops + ownDrops : 0,
        spoolDropCount: number === 0 ? spoolDrops : 0,
        observedToMs,
        bytes,
      });
      metrics.flows.inc(flowCount);
      metrics.batches.inc();
    });
  }

  #encode(
    reports: readonly ConnectionReport[],
    headOf: (number: number) => Omit<BatchHead, keyof ReporterIdentity | 'bootId'>,
  ): EncodedPart[] {
    const { identity, bootId, ownAddresses, log, metrics } = this.#options;
    const encode = (part: readonly ConnectionReport[], number: number): Buffer =>
      encodeReports({ ...identity, bootId, ...headOf(number) }, part, (ends) => ownAddresses.sideOf(ends));
    return encodeParts(reports, this.#options, encode, (report, error) => {
      this.#unfitCount++;
      metrics.dropped.inc({ cause: 'unfit' });
      log.error({ report, err: error }, 'a connection could not be put into a batch and is dropped');
    });
  }

  /** Reports what was seen until now, then stops the source. */
  async stop(): Promise<void> {
    this.#stopped = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
    await this.#beat;
    await this.#report();
    await this.#options.source.stop();
  }
}

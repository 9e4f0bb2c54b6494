/** The agent's beat: each interval, what the source told becomes batches in the spool. */
import type { Logger } from 'pino';
import { type BatchLimits, encodeReports, type ReporterIdentity, splitReports } from './batcher.ts';
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
}

/** A connection waits for its first counters at least this long before it is reported without, ms. */
const minCounterWaitMs = 10_000;

export class Agent {
  readonly #options: AgentOptions;
  readonly #table: ConnectionTable;
  #timer: NodeJS.Timeout | null = null;
  #beat: Promise<void> = Promise.resolve();
  #observedFromMs: number;
  #lastBatchMs = 0;
  #toldSourceDrops = 0;
  #toldTableDrops = 0;
  #stopped = false;

  constructor(options: AgentOptions) {
    this.#options = options;
    this.#observedFromMs = options.nowMs();
    this.#table = new ConnectionTable({
      maxConnections: options.maxConnections,
      quietReportMs: options.quietReportMs,
      counterWaitMs: Math.max(minCounterWaitMs, 2 * options.intervalMs),
      observedSinceMs: this.#observedFromMs,
      reportedUntilMs: options.spool.observedToMs,
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
    this.#options.onReported();
  }

  #put(reports: readonly ConnectionReport[], observedToMs: number): void {
    const { spool, source, metrics, heartbeatMs } = this.#options;
    const sourceDrops = source.droppedCount() - this.#toldSourceDrops;
    const tableDrops = this.#table.droppedCount - this.#toldTableDrops;
    const observedFromMs = this.#observedFromMs;
    const heartbeatDue = heartbeatMs > 0 && observedToMs - this.#lastBatchMs >= heartbeatMs;
    const nothingToTell = reports.length === 0 && sourceDrops + tableDrops + spool.pendingDropCount === 0;
    this.#observedFromMs = observedToMs;
    if (nothingToTell && !heartbeatDue) return;
    metrics.dropped.inc({ cause: 'source' }, sourceDrops);
    metrics.dropped.inc({ cause: 'table-full' }, tableDrops);
    this.#toldSourceDrops += sourceDrops;
    this.#toldTableDrops += tableDrops;
    this.#lastBatchMs = observedToMs;
    const dropsOf = (isFirst: boolean): number => (isFirst ? sourceDrops + tableDrops : 0);
    let isFirstTaken = true;
    splitReports(
      reports,
      this.#options,
      (part, isFirst) => this.#encode(part, observedFromMs, observedToMs, dropsOf(isFirst)),
      (part, bytes) => {
        spool.append({
          flowCount: part.length,
          sourceDroppedCount: dropsOf(isFirstTaken),
          observedToMs,
          bytes,
        });
        isFirstTaken = false;
        metrics.flows.inc(part.length);
        metrics.batches.inc();
      },
    );
  }

  #encode(
    part: readonly ConnectionReport[],
    observedFromMs: number,
    observedToMs: number,
    dropCount: number,
  ): Buffer {
    const { identity, bootId, spool, ownAddresses } = this.#options;
    const head = {
      ...identity,
      bootId,
      sequence: spool.nextSequence,
      observedFromMs,
      observedToMs,
      sourceDroppedCount: dropCount + spool.pendingDropCount,
    };
    return encodeReports(head, part, (ends) => ownAddresses.sideOf(ends));
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

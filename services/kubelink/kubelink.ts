/** Joins the parts: sources tell the state, the state tells the publisher, and whoever watches gets the figures. */
import type { Logger } from 'pino';
import type { Bus, OutgoingMessage, TopicSpec } from '../../lib/bus/bus.ts';
import type { InventoryEvent } from '../../lib/inventory/events.ts';
import type { Readiness } from '../../lib/runtime/service.ts';
import { topics } from '../../schemas/topics.ts';
import type { KubelinkConfig } from './config.ts';
import { AddressClaims } from './conflicts.ts';
import { ignoredKinds } from './manifests/convert.ts';
import type { KubelinkMetrics } from './metrics.ts';
import { Publisher } from './publisher.ts';
import { rebuild } from './rebuild.ts';
import type { Sources } from './sources/make.ts';
import type { Restored, Source, SourceSink } from './sources/source.ts';
import { InventoryState, type Publication } from './state.ts';
import { Watermarks, watermarkOf } from './watermarks.ts';

/** Contested addresses that have a metric of their own. */
const maxConflictSeries = 50;
/** Problems of one source that are logged one by one at a time. */
const maxProblemsLogged = 20;
/** Entities of two sources that are named in the log; beyond, the metric alone tells of them. */
const maxContestedSaid = 1000;
/** Pause between two looks for what can be forgotten, ms; less where the retention is shorter. */
const expiryIntervalMs = 60_000;

export interface KubelinkOptions {
  readonly config: KubelinkConfig;
  readonly sources: Sources;
  readonly bus: Bus;
  /** Topics to make, if they are missing. */
  readonly topicSpecs: readonly TopicSpec[];
  readonly metrics: KubelinkMetrics;
  readonly readiness: Readiness;
  readonly log: Logger;
  /** Milliseconds since the epoch. */
  readonly now?: () => number;
}

export interface RunningKubelink {
  /** Sends what waits, if the bus takes it, and ends. */
  stop(): Promise<void>;
  /** Brings figures up to date that are too costly to keep. */
  collect(): void;
}

class Kubelink implements RunningKubelink {
  readonly #options: KubelinkOptions;
  readonly #now: () => number;
  readonly #state: InventoryState;
  readonly #claims = new AddressClaims();
  readonly #publisher: Publisher;
  readonly #watermarks: Watermarks;
  /** Watermarks that stood on the topic at the start or at the last refresh, ms by source. */
  readonly #restoredMarks = new Map<string, number>();
  readonly #synced = new Set<string>();
  readonly #contestedSaid = new Set<string>();
  readonly #problems = new Map<string, ReadonlySet<string>>();
  #expiry: NodeJS.Timeout | null = null;

  constructor(options: KubelinkOptions) {
    const { config, sources, bus, metrics, readiness, log } = options;
    this.#options = options;
    this.#now = options.now ?? Date.now;
    this.#state = new InventoryState({
      activeSources: new Set(sources.sources.map(({ name }) => name)),
      endedRetentionMs: config.endedRetentionMs,
    });
    this.#publisher = new Publisher({
      append: (messages: readonly OutgoingMessage[]) => bus.append(topics.inventory, messages),
      onBusState: (state) => readiness.set('bus', state),
      maxBatchMessageCount: config.maxBatchMessageCount,
      maxBatchBytes: config.maxBatchBytes,
      maxRetryDelayMs: config.maxRetryDelayMs,
      metrics,
      log,
    });
    this.#watermarks = new Watermarks({
      sources: sources.sources,
      intervalMs: config.watermarkIntervalMs,
      flushed: () => this.#publisher.flushed(),
      put: (publications) => this.#publisher.put(publications),
      onPublished: (source, completeToMs) => metrics.completeTo.set({ source }, completeToMs / 1000),
    });
  }

  /** Reads the topic, then starts the sources. */
  async start(signal: AbortSignal): Promise<void> {
    const { sources, readiness, config } = this.#options;
    const names = sources.sources.map(({ name }) => name);
    const onBusState = (state: true | string): void => readiness.set('bus', state);
    onBusState('the inventory topic was not read yet');
    for (const name of names) readiness.set(`source ${name}`, 'not read yet');
    await this.#rebuild(new Set([...names, ...sources.retired]), signal, (publication) => {
      if (this.#noteMark(publication)) return;
      this.#state.restore(publication);
      this.#claims.follow(publication.key, publication.event);
    });
    for (const source of sources.sources) source.start(this.#sinkOf(source), this.#restoredOf(source));
    this.#endRetired();
    const expire = (): void => this.#publish(this.#state.expire(this.#now()));
    this.#expiry = setInterval(expire, Math.max(100, Math.min(expiryIntervalMs, config.endedRetentionMs)));
    expire();
    this.#watermarks.start();
  }

  async stop(): Promise<void> {
    this.#watermarks.stop();
    if (this.#expiry !== null) clearInterval(this.#expiry);
    await Promise.all(this.#options.sources.sources.map((source) => source.stop()));
    await this.#publisher.stop();
  }

  /** Figures that are counted when somebody asks. */
  collect(): void {
    const { entities, contested } = this.#options.metrics;
    contested.set(this.#state.contestedCount);
    entities.reset();
    for (const { event, source, endedMs } of this.#state.entities()) {
      if (event === null) continue;
      const kind = event.type === 'workload' ? event.kind : event.type;
      entities.inc({ source, kind, state: endedMs === null ? 'live' : 'ended' });
    }
  }

  #sinkOf({ name }: Source): SourceSink {
    const { metrics, readiness, log } = this.#options;
    return {
      snapshot: (events, seenToMs, changedMs) => {
        this.#publish(this.#state.snapshot(name, events, this.#now(), seenToMs, changedMs));
        metrics.lastSync.set({ source: name }, this.#now() / 1000);
        this.#noteSync(name, events);
      },
      change: (event, atMs, seenToMs) =>
        this.#publish(this.#state.change(name, event, this.#now(), atMs, seenToMs)),
      gone: (key, atMs) => this.#publish(this.#state.gone(name, key, atMs ?? this.#now())),
      problems: (current) => this.#noteProblems(name, current),
      ignored: (current) => {
        for (const kind of [...ignoredKinds, 'other'] as const) {
          metrics.ignored.set({ source: name, kind }, current.get(kind) ?? 0);
        }
      },
      failing: (reason) => {
        metrics.sourceFailures.inc({ source: name });
        if (!this.#synced.has(name)) readiness.set(`source ${name}`, reason);
        log.warn({ source: name, reason }, 'source cannot be read; what is known of it stays');
      },
      vouches: () => void this.#watermarks.lookAt(name),
      standby: (holder) => {
        log.info({ source: name, holder }, 'another kubelink publishes this source; standing by');
        readiness.set(`source ${name}`, true);
      },
    };
  }

  #rebuild(
    owners: ReadonlySet<string>,
    signal: AbortSignal,
    restore: (publication: Publication) => void,
  ): Promise<void> {
    const { bus, topicSpecs, readiness, log, config } = this.#options;
    return rebuild({
      bus,
      topicSpecs,
      restore,
      owners,
      maxRetryDelayMs: config.maxRetryDelayMs,
      onBusState: (state) => readiness.set('bus', state),
      log,
      signal,
    });
  }

  /** Keeps a watermark that stood on the topic: it is no entity. Returns whether it was one. */
  #noteMark({ event }: Publication): boolean {
    if (event?.type !== 'watermark') return false;
    this.#restoredMarks.set(event.source, event.completeToMs);
    return true;
  }

  #restoredOf({ name }: Source): Restored {
    const release = (): Promise<void> => {
      this.#watermarks.void(name);
      return this.#publisher.drop(name);
    };
    return {
      clusterUid: (cluster) => {
        const found = this.#state.find(`cluster/${cluster}`);
        if (found?.source !== name || found.event?.type !== 'cluster') return null;
        return found.event.uid ?? null;
      },
      event: (key) => {
        const found = this.#state.find(key);
        return found?.source === name ? found.event : null;
      },
      completeToMs: () => this.#restoredMarks.get(name) ?? 0,
      refresh: async (signal) => {
        await release();
        const onTopic = new Map<string, Publication>();
        await this.#rebuild(new Set([name]), signal, (publication) => {
          if (!this.#noteMark(publication)) onTopic.set(publication.key, publication);
        });
        const own = [...onTopic.values()].filter(({ source }) => source === name);
        const touched = new Set(own.map(({ key }) => key));
        for (const { key, source } of this.#state.entities()) if (source === name) touched.add(key);
        this.#state.replace(name, own);
        for (const key of touched) this.#claims.follow(key, this.#state.find(key)?.event ?? null);
      },
      release: () => void release(),
    };
  }

  #publish(publications: readonly Publication[]): void {
    const { metrics, log } = this.#options;
    for (const { key, event } of publications) this.#claims.follow(key, event);
    for (const { network, ip, claimants } of this.#claims.settle()) {
      log.warn({ network, ip, claimants }, 'two or more workloads or services claim one address');
    }
    metrics.conflicts.set(this.#claims.count);
    metrics.conflict.reset();
    for (const { network, ip, claimants } of this.#claims.current(maxConflictSeries)) {
      metrics.conflict.set({ network, ip, claimants: claimants.join(', ') }, 1);
    }
    this.#noteContested();
    this.#publisher.put(publications);
  }

  /** Says once of each entity that two sources speak of it. */
  #noteContested(): void {
    const { log } = this.#options;
    for (const { key, owner, source } of this.#state.takeContested()) {
      const pair = `${key} ${owner} ${source}`;
      if (this.#contestedSaid.has(pair) || this.#contestedSaid.size >= maxContestedSaid) continue;
      this.#contestedSaid.add(pair);
      log.warn({ key, owner, notHeard: source }, 'two sources speak of one thing; the first one counts');
    }
  }

  #noteSync(name: string, events: readonly InventoryEvent[]): void {
    if (this.#synced.has(name)) return;
    const { readiness, log } = this.#options;
    this.#synced.add(name);
    log.info({ source: name, entityCount: events.length }, 'source read');
    readiness.set(`source ${name}`, 'read, not published yet');
    void this.#publisher.flushed().then(() => readiness.set(`source ${name}`, true));
    this.#endRetired();
  }

  /** Ends what former sources left, once every source has taken over what is its own. */
  #endRetired(): void {
    const { sources } = this.#options;
    if (sources.sources.some(({ name }) => !this.#synced.has(name))) return;
    for (const name of sources.retired) this.#publish(this.#state.snapshot(name, [], this.#now()));
    const vouching = sources.sources.filter(({ completeToMs }) => completeToMs !== undefined);
    const names = new Set(vouching.map(({ name }) => name));
    const stale = [...this.#restoredMarks.keys()].filter((name) => !names.has(name));
    for (const name of stale) this.#restoredMarks.delete(name);
    // Whoever reads takes a source without a watermark at its word, so the ends have to be there first.
    void this.#publisher
      .flushed()
      .then(() => this.#publisher.put(stale.map((name) => watermarkOf(name, null))));
  }

  #noteProblems(name: string, current: readonly string[]): void {
    const { metrics, log } = this.#options;
    const before = this.#problems.get(name) ?? new Set();
    const news = current.filter((problem) => !before.has(problem));
    this.#problems.set(name, new Set(current));
    metrics.malformed.set({ source: name }, current.length);
    if (news.length > 0) metrics.malformedSeen.inc({ source: name }, news.length);
    for (const problem of news.slice(0, maxProblemsLogged)) log.warn({ source: name }, problem);
    if (news.length > maxProblemsLogged) {
      log.warn({ source: name, notShownCount: news.length - maxProblemsLogged }, 'more of the kind');
    }
  }
}

/** Starts kubelink on an open bus. Rejects, with its reason, only when `signal` is aborted meanwhile. */
export async function startKubelink(options: KubelinkOptions, signal: AbortSignal): Promise<RunningKubelink> {
  const kubelink = new Kubelink(options);
  await kubelink.start(signal);
  return kubelink;
}

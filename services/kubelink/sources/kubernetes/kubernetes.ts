/**
 * A source that is a Kubernetes cluster, by its API server: one connection that carries the watches of all kinds, the
 * lease, and the proofs that nothing is missing. When the connection breaks, everything goes on where it was.
 */
import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import { backoffMs } from '../../../../lib/runtime/backoff.ts';
import type { KubelinkConfig, KubernetesSource as KubernetesSourceConfig } from '../../config.ts';
import { type CarryRules, carryRules, checkedCidr } from '../../manifests/common.ts';
import type { Restored, Source, SourceSink } from '../source.ts';
import { ClusterView } from './cluster-view.ts';
import { Connection } from './connection.ts';
import { type Converted, converted } from './converted.ts';
import { type Access, loadAccess } from './credentials.ts';
import { ConnectionError, StatusError } from './errors.ts';
import { Lease } from './lease.ts';
import type { KubernetesMetrics } from './metrics.ts';
import { proveComplete } from './probe.ts';
import { Reflector } from './reflector.ts';
import { headOf, type Kind, resources } from './resources.ts';

const connectTimeoutMs = 10_000;
const requestTimeoutMs = 30_000;
/** First pause after a failure, ms. */
const initialRetryDelayMs = 200;
/** Silence of a watch after which nothing more is expected of it, ms; doubled each time that was wrong, up to the largest. */
const initialSettleMs = 200;
const maxSettleMs = 3_200;
/** Pause before the same reason of a failure is said again, ms. */
const repeatedReasonMs = 30_000;
/** How long giving the lease back may take at the end, ms. */
const releaseTimeoutMs = 1_000;
/** First minor version 1.x of which a first state as a stream is asked. */
const watchListMinor = 27;

export interface KubernetesSourceOptions {
  readonly name: string;
  readonly source: KubernetesSourceConfig;
  readonly config: KubelinkConfig;
  readonly metrics: KubernetesMetrics;
  readonly log: Logger;
}

/** Another cluster stands behind the name than the one that was published under it. */
class OtherClusterError extends Error {
  override readonly name = 'OtherClusterError';
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** A pattern of a namespace, in which `*` stands for any text. */
function namespaceMatcher(patterns: readonly string[]): (namespace: string) => boolean {
  const quoted = patterns.map((pattern) =>
    pattern
      .split('*')
      .map((part) => part.replace(/[\\^$.|?+()[\]{}]/g, '\\$&'))
      .join('.*'),
  );
  const expressions = quoted.map((text) => new RegExp(`^${text}$`));
  return (namespace) => expressions.some((expression) => expression.test(namespace));
}

export class KubernetesSource implements Source {
  readonly name: string;
  readonly #options: KubernetesSourceOptions;
  readonly #carry: CarryRules;
  readonly #isExcluded: (namespace: string) => boolean;
  readonly #view: ClusterView;
  readonly #reflectors: readonly Reflector<Converted>[];
  readonly #stop = new AbortController();
  readonly #identity = `${hostname()}_${randomUUID()}`;
  #sink: SourceSink | null = null;
  #restored: Restored | null = null;
  #running: Promise<void> = Promise.resolve();
  /** The lease of the connection at hand; `null` where none is wanted. */
  #lease: Lease | null = null;
  /** Rises with each taking and giving up of the lease. */
  #term = 0;
  /** What stands on the topic is known, so that it can be told what is different. */
  #mayTell = false;
  /** Everything was told in this term; from then on changes are. */
  #isTelling = false;
  /** When everything was told last, ms. */
  #toldSinceMs = 0;
  #uid = '';
  /** Everything that took effect until here was heard, ms; 0: nothing yet. */
  #vouchedMs = 0;
  /** For each kind, up to when its first state vouches for what it does not name. */
  readonly #readMs = new Map<Kind, number>();
  #settleMs = initialSettleMs;
  #lateCount = 0;
  #toldProblems = 0;
  /** Reasons of failure said lately, on the clock of `performance`. */
  readonly #saidAt = new Map<string, number>();

  /** @throws {FieldError} where the configuration holds a range that does not parse. */
  constructor(options: KubernetesSourceOptions) {
    const { name, source, config, metrics } = options;
    const at = `kubelink source ${name}`;
    this.name = name;
    this.#options = options;
    this.#carry = carryRules(config.droppedLabels, config.carriedAnnotations);
    this.#isExcluded = namespaceMatcher(source.excludedNamespaces);
    this.#view = new ClusterView({
      cluster: source.cluster,
      podCidrs: source.podCidrs.map((cidr) => checkedCidr(cidr, `${at}: podCidrs`)),
      serviceCidrs: source.serviceCidrs.map((cidr) => checkedCidr(cidr, `${at}: serviceCidrs`)),
    });
    const { pageSize } = source;
    const { maxRetryDelayMs } = config;
    this.#reflectors = resources.map((resource) => {
      const { kind } = resource;
      return new Reflector(
        { resource, pageSize, maxRetryDelayMs, metrics, source: name },
        {
          convert: (object) => this.#convert(kind, object),
          replace: (objects, askedMs) => this.#replace(kind, objects, askedMs),
          apply: (object, isGone) => this.#apply(kind, object, isGone),
          failing: (reason) => this.#fail(reason),
        },
      );
    });
  }

  start(sink: SourceSink, restored: Restored): void {
    this.#sink = sink;
    this.#restored = restored;
    this.#mayTell = !this.#options.source.lease;
    this.#running = this.#run();
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  completeToMs(): number {
    return this.#isTelling && this.#isWriter() ? this.#vouchedMs : 0;
  }

  /** Whether this process is the one that publishes, at this very moment. */
  #isWriter(): boolean {
    return this.#mayTell && (!this.#options.source.lease || this.#lease?.isHeld === true);
  }

  async #run(): Promise<void> {
    const { config } = this.#options;
    const { signal } = this.#stop;
    for (let failureCount = 0; !signal.aborted; ) {
      const openedAt = performance.now();
      try {
        await this.#session();
      } catch (error) {
        if (signal.aborted) return;
        if (performance.now() - openedAt > config.maxRetryDelayMs) failureCount = 0;
        failureCount++;
        const isOrderly = error instanceof ConnectionError && error.isOrderly;
        if (!isOrderly) this.#fail(reasonOf(error));
        const limits = { initialMs: initialRetryDelayMs, maxMs: config.maxRetryDelayMs };
        await sleep(backoffMs(failureCount, limits), undefined, { signal }).catch(() => undefined);
      }
    }
  }

  /** One connection, from its begin to its end. Rejects with why it ended. */
  async #session(): Promise<void> {
    const { name, source, metrics, log } = this.#options;
    const { frozenTimeoutMs } = source;
    // Credentials are read anew for each connection, so that a token that was refused is not used again.
    const access = await loadAccess({
      ...(source.kubeconfig === undefined ? {} : { kubeconfig: source.kubeconfig }),
      ...(source.context === undefined ? {} : { context: source.context }),
    });
    const connection = await Connection.open(access, { connectTimeoutMs, frozenTimeoutMs, requestTimeoutMs });
    const scope = new AbortController();
    const signal = AbortSignal.any([scope.signal, this.#stop.signal]);
    const tasks: Promise<unknown>[] = [];
    try {
      await this.#identify(connection, access);
      const useStream = source.watchList && (await hasWatchLists(connection));
      metrics.connections.inc({ source: name });
      metrics.connected.set({ source: name }, 1);
      log.info({ server: access.origin, uid: this.#uid, useStream }, 'connected to the API server');
      tasks.push(...this.#reflectors.map((reflector) => reflector.run(connection, useStream, signal)));
      tasks.push(this.#prove(connection, signal));
      if (source.lease) tasks.push(this.#lead(connection, access, signal));
      for (const task of tasks) task.catch(() => undefined);
      await Promise.race([...tasks, connection.ended, aborted(signal)]);
    } finally {
      metrics.connected.set({ source: name }, 0);
      scope.abort();
      if (this.#stop.signal.aborted) await this.#leave(connection);
      connection.fail('no longer needed');
      await Promise.allSettled(tasks);
    }
  }

  /** Makes sure that it is the cluster it was. @throws {OtherClusterError} */
  async #identify(connection: Connection, access: Access): Promise<void> {
    const { cluster, acceptUid } = this.#options.source;
    const body = await connection.json({ path: '/api/v1/namespaces/kube-system' });
    const { uid } = headOf(body);
    if (uid === '') throw new Error(`${access.origin}: the namespace kube-system has no uid`);
    const before = this.#uid === '' ? this.#restored?.clusterUid(cluster) : this.#uid;
    if (before !== null && before !== undefined && before !== uid && acceptUid !== uid) {
      throw otherCluster(cluster, uid, before);
    }
    if (this.#uid === uid) return;
    this.#uid = uid;
    this.#isTelling = false;
    this.#vouchedMs = 0;
    this.#readMs.clear();
    this.#view.reset(uid);
    for (const reflector of this.#reflectors) reflector.reset();
  }

  #convert(kind: Kind, object: Record<string, unknown>): Converted {
    const head = headOf(object);
    const namespace = kind === 'Namespace' ? head.ref : head.namespace;
    const nothing = { ...head, writtenMs: 0 };
    if (namespace !== '' && this.#isExcluded(namespace)) return { ...nothing, conversion: null };
    const { ref, uid, resourceVersion } = head;
    if (this.#view.isKnown(kind, ref, uid, resourceVersion)) return { ...nothing, conversion: 'known' };
    const { cluster } = this.#options.source;
    return converted(kind, head, object, { cluster, carry: this.#carry, nowMs: Date.now() });
  }

  #replace(kind: Kind, objects: readonly Converted[], askedMs: number): void {
    this.#view.replace(kind, objects);
    this.#readMs.set(kind, askedMs - this.#options.source.statusLagMs);
    this.#tellProblems();
    this.#tellAll();
  }

  #apply(kind: Kind, object: Converted, isGone: boolean): void {
    const seenToMs = Math.max(this.#vouchedMs, this.#readMs.get(kind) ?? 0);
    const isTold = this.#isTelling && this.#isWriter();
    const toldSinceMs = isTold ? this.#toldSinceMs : Number.POSITIVE_INFINITY;
    const news = this.#view.apply(kind, object, isGone, { nowMs: Date.now(), seenToMs, toldSinceMs });
    this.#tellProblems();
    if (!isTold) return;
    for (const one of news) {
      if (one.type === 'gone') this.#sink?.gone(one.key, one.atMs);
      else this.#sink?.change(one.event, one.atMs, seenToMs === 0 ? undefined : seenToMs);
    }
  }

  /** Tells everything, once all of it was read; what has gone meanwhile is told thereby too. */
  #tellAll(): void {
    if (!this.#isWriter() || !this.#view.isSynced(resources.map(({ kind }) => kind))) return;
    const nowMs = Date.now();
    // Up to when the topic knows everything, not only this process.
    const seenToMs = Math.max(this.#isTelling ? this.#vouchedMs : 0, this.#restored?.completeToMs() ?? 0);
    this.#isTelling = true;
    this.#toldSinceMs = nowMs;
    const time = { nowMs, seenToMs };
    this.#sink?.snapshot(this.#view.all(), seenToMs, (event) => this.#view.changedMs(event, time));
  }

  /** Says what is wrong; the same again only after a while, as it is tried again and again. */
  #fail(reason: string): void {
    const now = performance.now();
    if (now - (this.#saidAt.get(reason) ?? Number.NEGATIVE_INFINITY) < repeatedReasonMs) return;
    for (const [said, at] of this.#saidAt) if (now - at >= repeatedReasonMs) this.#saidAt.delete(said);
    this.#saidAt.set(reason, now);
    this.#sink?.failing(reason);
  }

  #tellProblems(): void {
    const { problemVersion } = this.#view;
    if (problemVersion === this.#toldProblems) return;
    this.#toldProblems = problemVersion;
    this.#sink?.problems(this.#view.problems());
  }

  /** Proves again and again that everything was heard, and notes up to when. */
  async #prove(connection: Connection, signal: AbortSignal): Promise<never> {
    const { probeIntervalMs, statusLagMs } = this.#options.source;
    let beganAt = performance.now();
    for (;;) {
      const restMs = Math.max(0, beganAt + probeIntervalMs - performance.now());
      await connection.within(sleep(restMs, undefined, { signal }));
      beganAt = performance.now();
      try {
        const heardToMs = await proveComplete(connection, this.#reflectors, this.#settleMs, signal);
        if (heardToMs !== null) {
          this.#vouchedMs = Math.max(this.#vouchedMs, heardToMs - statusLagMs);
          this.#sink?.vouches?.();
        }
      } catch (error) {
        signal.throwIfAborted();
        if (!connection.isOpen || (error instanceof StatusError && error.code === 401)) throw error;
        // Whatever is wrong, its own watch says so too; nothing is vouched for meanwhile.
      }
      this.#watchLateness();
    }
  }

  /** An overloaded server may be slower with its watches than was taken for certain: more is left to it from then on. */
  #watchLateness(): void {
    const lateCount = this.#reflectors.reduce((sum, reflector) => sum + reflector.lateCount, 0);
    if (lateCount === this.#lateCount) return;
    this.#settleMs = Math.min(maxSettleMs, this.#settleMs * 2);
    const { log } = this.#options;
    log.warn(
      { eventCount: lateCount - this.#lateCount, settleMs: this.#settleMs },
      'changes were heard after their time had been vouched for; the watermark stays further behind from now on',
    );
    this.#lateCount = lateCount;
  }

  /** Seeks the lease for as long as the connection lasts. */
  async #lead(connection: Connection, access: Access, signal: AbortSignal): Promise<never> {
    const { source, config, metrics, name } = this.#options;
    const namespace = source.leaseNamespace ?? access.namespace;
    this.#lease ??= new Lease({
      namespace,
      name: source.leaseName,
      durationMs: source.leaseDurationMs,
      identity: this.#identity,
      onHeld: () => void this.#takeOver(),
      onLost: (why) => this.#giveUp(why),
      onHolder: (holder) => {
        metrics.leader.set({ source: name }, holder === this.#identity ? 1 : 0);
        if (holder !== this.#identity) this.#sink?.standby?.(holder);
      },
    });
    for (let failureCount = 1; ; failureCount++) {
      try {
        return await this.#lease.run(connection, signal);
      } catch (error) {
        signal.throwIfAborted();
        if (!connection.isOpen || (error instanceof StatusError && error.code === 401)) throw error;
        const isForbidden = error instanceof StatusError && error.code === 403;
        const help = isForbidden ? '; grant it (deploy/kubernetes/kubelink.yaml) or set lease: false' : '';
        this.#fail(`no lease, so nothing is published: ${reasonOf(error)}${help}`);
        const maxMs = Math.min(config.maxRetryDelayMs, source.leaseDurationMs / 5);
        const delayMs = backoffMs(failureCount, { initialMs: initialRetryDelayMs, maxMs });
        await connection.within(sleep(delayMs, undefined, { signal }));
      }
    }
  }

  /** The lease is held: learns what stands on the topic, then tells everything. */
  async #takeOver(): Promise<void> {
    const { source, log } = this.#options;
    const term = ++this.#term;
    log.info('this kubelink publishes the cluster from now on');
    try {
      await this.#restored?.refresh(this.#stop.signal);
    } catch {
      return;
    }
    if (term !== this.#term) return;
    const published = this.#restored?.clusterUid(source.cluster) ?? null;
    if (published !== null && published !== this.#uid && source.acceptUid !== this.#uid) {
      this.#fail(otherCluster(source.cluster, this.#uid, published).message);
      return;
    }
    this.#mayTell = true;
    this.#tellAll();
  }

  /** The lease is no longer held: nothing more is told, and what waits for the bus is dropped. */
  #giveUp(why: string): void {
    const { log, metrics, name } = this.#options;
    this.#term++;
    this.#mayTell = false;
    this.#isTelling = false;
    this.#restored?.release();
    metrics.leader.set({ source: name }, 0);
    log.warn({ why }, 'this kubelink no longer publishes the cluster');
  }

  async #leave(connection: Connection): Promise<void> {
    const timeout = sleep(releaseTimeoutMs, undefined, { ref: false });
    await Promise.race([this.#lease?.release(connection), timeout]).catch(() => undefined);
  }
}

function otherCluster(cluster: string, uid: string, before: string): OtherClusterError {
  return new OtherClusterError(
    `the cluster behind the name ${cluster} is another one than before: its kube-system has the uid ${uid}, what was ` +
      `published is of ${before}. If the cluster was built anew, set acceptUid: ${uid}; else name the right API server, ` +
      'or give this cluster a name of its own',
  );
}

function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
}

/** Whether the server is of a version that may have watch lists; it refuses them where they are switched off. */
async function hasWatchLists(connection: Connection): Promise<boolean> {
  try {
    const version = await connection.json({ path: '/version' });
    if (!isRecord(version) || version.major !== '1' || typeof version.minor !== 'string') return false;
    return Number.parseInt(version.minor, 10) >= watchListMinor;
  } catch (error) {
    if (error instanceof StatusError) return false;
    throw error;
  }
}

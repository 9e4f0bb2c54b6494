/**
 * Holds a lease (coordination.k8s.io) in the cluster, as client-go does, so that one process publishes at a time. The
 * clock of another process is never trusted: its lease has expired when it was seen unchanged for its whole duration.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { ApiConnection, Request } from './connection.ts';
import { StatusError } from './errors.ts';

/** Parts of the duration: a renewal every fifth; after four fifths without one the holder gives up by itself. */
const renewalsPerDuration = 5;
const heldShare = 0.8;

export interface LeaseOptions {
  readonly namespace: string;
  readonly name: string;
  readonly durationMs: number;
  /** What tells this process from others. */
  readonly identity: string;
  /** Told when it is held by this process; and when it no longer is. */
  readonly onHeld: () => void;
  readonly onLost: (why: string) => void;
  /** Told who holds it, when that changes. */
  readonly onHolder: (holder: string) => void;
}

interface LeaseRecord {
  readonly holder: string;
  readonly durationMs: number;
  readonly resourceVersion: string;
  readonly transitions: number;
  readonly acquireTime: string;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function readLease(body: unknown): LeaseRecord {
  const lease = isRecord(body) ? body : {};
  const metadata = isRecord(lease.metadata) ? lease.metadata : {};
  const spec = isRecord(lease.spec) ? lease.spec : {};
  return {
    holder: typeof spec.holderIdentity === 'string' ? spec.holderIdentity : '',
    durationMs: typeof spec.leaseDurationSeconds === 'number' ? spec.leaseDurationSeconds * 1000 : 0,
    resourceVersion: typeof metadata.resourceVersion === 'string' ? metadata.resourceVersion : '',
    transitions: typeof spec.leaseTransitions === 'number' ? spec.leaseTransitions : 0,
    acquireTime: typeof spec.acquireTime === 'string' ? spec.acquireTime : '',
  };
}

/** A time as the API wants it for leases: with microseconds. */
function microTime(timeMs: number): string {
  return new Date(timeMs).toISOString().replace('Z', '000Z');
}

export class Lease {
  readonly #options: LeaseOptions;
  readonly #path: string;
  #heldUntil = 0;
  #isHeld = false;
  #expiry: NodeJS.Timeout | null = null;
  /** The record of another holder as it was seen last, and since when it is so, on this process' own clock. */
  #seen: { readonly record: LeaseRecord; readonly since: number } | null = null;
  #holder: string | null = null;

  constructor(options: LeaseOptions) {
    this.#options = options;
    const namespace = encodeURIComponent(options.namespace);
    this.#path = `/apis/coordination.k8s.io/v1/namespaces/${namespace}/leases`;
  }

  /** Whether this process holds it right now; false as soon as it can have expired, whatever else is going on. */
  get isHeld(): boolean {
    return this.#isHeld && performance.now() < this.#heldUntil;
  }

  /** Acquires, renews, waits, until the connection ends or `signal` is aborted; rejects with its reason, or where it is forbidden. */
  async run(connection: ApiConnection, signal: AbortSignal): Promise<never> {
    const stepMs = this.#options.durationMs / renewalsPerDuration;
    for (;;) {
      signal.throwIfAborted();
      const waitMs = await this.#step(connection);
      await connection.within(sleep(Math.max(10, Math.min(stepMs, waitMs)), undefined, { signal }));
    }
  }

  /** Lets go of it, so that another takes over at once. Does nothing where it is not held. */
  async release(connection: ApiConnection): Promise<void> {
    const record = this.isHeld ? await this.#read(connection) : null;
    this.#lose('released');
    if (record?.holder !== this.#options.identity) return;
    await connection.json(this.#update({ ...record, holder: '' }, 1));
  }

  /** One try; returns how long until the next, ms. */
  async #step(connection: ApiConnection): Promise<number> {
    const { durationMs, identity } = this.#options;
    const startedAt = performance.now();
    try {
      const record = await this.#read(connection);
      if (record === null) {
        await connection.json({
          method: 'POST',
          path: this.#path,
          body: this.#body(null, identity, durationMs),
        });
        this.#hold(startedAt);
        return durationMs;
      }
      if (record.holder !== identity && record.holder !== '') {
        if (this.#isHeld) this.#lose(`${record.holder} holds the lease`);
        const waitMs = this.#untilExpiry(record, startedAt);
        this.#noteHolder(record.holder);
        if (waitMs > 0) return waitMs;
      }
      await connection.json(this.#update({ ...record, holder: identity }, durationMs));
      this.#hold(startedAt);
      return durationMs;
    } catch (error) {
      // Another process was quicker (409): look again at once, as it may be us who lost.
      if (error instanceof StatusError && error.code === 409) return 0;
      throw error;
    }
  }

  #untilExpiry(record: LeaseRecord, now: number): number {
    const seen = this.#seen?.record;
    if (seen?.holder !== record.holder || seen.resourceVersion !== record.resourceVersion) {
      this.#seen = { record, since: now };
    }
    return (this.#seen?.since ?? now) + record.durationMs - now;
  }

  async #read(connection: ApiConnection): Promise<LeaseRecord | null> {
    try {
      return readLease(
        await connection.json({ path: `${this.#path}/${encodeURIComponent(this.#options.name)}` }),
      );
    } catch (error) {
      if (error instanceof StatusError && error.code === 404) return null;
      throw error;
    }
  }

  #update(record: LeaseRecord, durationMs: number): Request {
    const path = `${this.#path}/${encodeURIComponent(this.#options.name)}`;
    return { method: 'PUT', path, body: this.#body(record, record.holder, durationMs) };
  }

  #body(record: LeaseRecord | null, holder: string, durationMs: number): unknown {
    const { name, namespace } = this.#options;
    const now = microTime(Date.now());
    const isRenewal = record !== null && this.#isHeld;
    return {
      apiVersion: 'coordination.k8s.io/v1',
      kind: 'Lease',
      metadata: { name, namespace, ...(record === null ? {} : { resourceVersion: record.resourceVersion }) },
      spec: {
        holderIdentity: holder,
        leaseDurationSeconds: Math.max(1, Math.ceil(durationMs / 1000)),
        acquireTime: isRenewal && record.acquireTime !== '' ? record.acquireTime : now,
        renewTime: now,
        leaseTransitions: (record?.transitions ?? 0) + (isRenewal || record === null ? 0 : 1),
      },
    };
  }

  #hold(startedAt: number): void {
    const { durationMs, identity, onHeld } = this.#options;
    this.#heldUntil = startedAt + durationMs * heldShare;
    if (this.#expiry !== null) clearTimeout(this.#expiry);
    this.#expiry = setTimeout(
      () => this.#lose('the lease could not be renewed in time'),
      Math.max(0, this.#heldUntil - performance.now()),
    );
    this.#seen = null;
    if (this.#isHeld) return;
    this.#isHeld = true;
    this.#noteHolder(identity);
    onHeld();
  }

  #lose(why: string): void {
    if (this.#expiry !== null) clearTimeout(this.#expiry);
    this.#expiry = null;
    if (!this.#isHeld) return;
    this.#isHeld = false;
    this.#holder = null;
    this.#options.onLost(why);
  }

  #noteHolder(holder: string): void {
    if (this.#holder === holder) return;
    this.#holder = holder;
    this.#options.onHolder(holder);
  }
}

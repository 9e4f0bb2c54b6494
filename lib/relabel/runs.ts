/** What runs of `eastwest relabel` have written down: who is at it, how far, and what one that died left behind. */
import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import type { Store } from '../store/store.ts';

/**
 * Where a run is with its day. A day is moved out (`taking`), worked at (`building`), and replaced (`built`: both are there;
 * `swapped`: the new rows have taken the place of the old ones; `rolled`: the rollups know) before it is moved back.
 */
export type RunStep = 'started' | 'taking' | 'building' | 'built' | 'swapped' | 'rolled' | 'done' | 'failed';

export interface RunRow {
  readonly id: string;
  readonly owner: string;
  readonly since: number;
  readonly policy: number;
  readonly day: number;
  readonly step: RunStep;
  /** When it began, as the store has it. */
  readonly started: string;
}

/** A run that has said nothing for so long is taken to be dead, ms. */
export const silentMs = 12_000;
/** How often a run says that it is alive, ms. */
const heartbeatMs = 2_000;
/** How often one that waits for another looks again, ms. */
const lookMs = 500;

/** Another run is at work. */
export class BusyError extends Error {
  override readonly name = 'BusyError';
}

interface StoredRun {
  readonly id: string;
  readonly owner: string;
  readonly since_s: number;
  readonly policy: number;
  readonly day: number;
  readonly step: RunStep;
  readonly started: string;
  readonly silent_ms: string;
}

async function unfinished(store: Store): Promise<StoredRun[]> {
  return store.query<StoredRun>(
    `SELECT id, owner, toUnixTimestamp(since) AS since_s, policy, day, step, toString(started) AS started,
       toUnixTimestamp64Milli(now64(3)) - toUnixTimestamp64Milli(updated_at) AS silent_ms
     FROM relabels FINAL WHERE step NOT IN ('done', 'failed') ORDER BY relabels.started, id`,
  );
}

/** Whether the owner was a process of this machine that has ended. */
function hasEnded(owner: string): boolean {
  const [host, pid] = owner.split('/');
  if (host !== hostname() || Number(pid) === process.pid) return false;
  try {
    process.kill(Number(pid), 0);
    return false;
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'ESRCH';
  }
}

function mayLive({ owner, silent_ms }: StoredRun): boolean {
  return Number(silent_ms) < silentMs && !hasEnded(owner);
}

/** A run of this process, from {@link openRun} until it is closed. */
export class Run {
  readonly id = randomUUID();
  readonly owner = `${hostname()}/${process.pid}`;
  readonly #store: Store;
  readonly #since: number;
  readonly #policy: number;
  readonly #startedMs = Date.now();
  #state: { day: number; step: RunStep; flows: number; changed: number; detail: string } = {
    day: 0,
    step: 'started',
    flows: 0,
    changed: 0,
    detail: '',
  };
  #writing: Promise<void> = Promise.resolve();
  #timer: NodeJS.Timeout | undefined;

  constructor(store: Store, since: number, policy: number) {
    this.#store = store;
    this.#since = since;
    this.#policy = policy;
  }

  /** Whether a day is taken, which has to be given back. */
  get holdsDay(): boolean {
    return this.#state.day !== 0;
  }

  /** Writes down where the run is; durable when it resolves. */
  async note(
    change: Partial<{ day: number; step: RunStep; flows: number; changed: number; detail: string }>,
  ) {
    this.#state = { ...this.#state, ...change };
    const state = this.#state;
    // One after the other, so that the newest is the last.
    const written = this.#writing.then(() =>
      this.#store.insertRows('relabels', [
        {
          id: this.id,
          owner: this.owner,
          since: this.#since,
          policy: this.#policy,
          ...state,
          started: new Date(this.#startedMs).toISOString().slice(0, -1).replace('T', ' '),
        },
      ]),
    );
    this.#writing = written.catch(() => undefined);
    await written;
  }

  /** Says that it is alive until {@link close}. */
  live(): void {
    this.#timer = setInterval(() => void this.note({}).catch(() => undefined), heartbeatMs);
  }

  async close(step: 'done' | 'failed', detail = ''): Promise<void> {
    clearInterval(this.#timer);
    await this.note({ step, detail, ...(step === 'done' ? { day: 0 } : {}) });
  }

  /** Stops saying that it is alive, and leaves the rest to the next run. */
  abandon(): void {
    clearInterval(this.#timer);
  }
}

/**
 * Begins a run. Waits until others that died are known to be dead. Returns what they left behind, oldest first.
 * @throws {BusyError} while another one lives
 */
export async function openRun(
  store: Store,
  since: number,
  policy: number,
  onWait: () => void,
): Promise<{ run: Run; left: readonly RunRow[] }> {
  const run = new Run(store, since, policy);
  const seenSilent = new Map<string, number>();
  let waits = false;
  for (;;) {
    const others = await unfinished(store);
    const alive = others.filter(mayLive);
    if (alive.length === 0) break;
    for (const { id, silent_ms } of alive) {
      const before = seenSilent.get(id);
      if (before !== undefined && Number(silent_ms) < before)
        throw new BusyError('another `eastwest relabel` is at work: wait until it is done');
      seenSilent.set(id, Number(silent_ms));
    }
    if (!waits) onWait();
    waits = true;
    await delay(lookMs);
  }
  await run.note({});
  run.live();
  // Of two that began at once, the one that stands first goes on.
  const [first] = (await unfinished(store)).filter(mayLive);
  if (first !== undefined && first.id !== run.id) {
    await run.close('failed', 'another one began at the same time');
    throw new BusyError('another `eastwest relabel` began at the same time: wait until it is done');
  }
  const left = (await unfinished(store)).filter(({ id }) => id !== run.id);
  return {
    run,
    left: left.map(({ since_s, silent_ms: _, ...row }) => ({ ...row, since: since_s })),
  };
}

/** Writes down that what a dead run had left is done. */
export async function closeLeft(store: Store, left: RunRow): Promise<void> {
  const detail = 'it was interrupted; what it had begun was finished by the next run';
  await store.insertRows('relabels', [{ ...left, step: 'failed', detail }]);
}

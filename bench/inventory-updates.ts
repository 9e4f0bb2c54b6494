/** How fast the inventory takes changes, and how long a reader waits meanwhile at most. */
import { inventoryKey, type WorkloadEvent } from '../lib/inventory/events.ts';
import { Inventory, type LabelsOf } from '../lib/inventory/inventory.ts';

const updateCount = 100_000;
const namespaces = 2000;

export interface UpdateResult {
  readonly updatesPerSecond: number;
  /** Longest time of one apply while the inventory was filled, and while it was changed, ms. */
  readonly longestFillMs: number;
  readonly longestUpdateMs: number;
  /** Longest time that nothing else could run while all were relabelled, and until all were, ms. */
  readonly longestRelabelMs: number;
  readonly relabelMs: number;
  readonly heapBytesPerWorkload: number;
  readonly flatBytesPerWorkload: number;
}

const beginMs = 1_700_000_000_000;

function uidOf(i: number): string {
  const hex = i.toString(16).padStart(12, '0');
  return `${(Math.imul(i, 0x9e3779b1) >>> 0).toString(16).padStart(8, '0')}-4c1d-4000-8000-${hex}`;
}

function ipOf(i: number, moves: number): string {
  const address = i * 4 + (moves % 4);
  return `10.${(address >>> 16) & 255}.${(address >>> 8) & 255}.${address & 255}`;
}

/** A pod that got another address `moves` times, each a minute after the one before. */
function pod(i: number, moves: number, revision: number): WorkloadEvent {
  const namespace = i % namespaces;
  const network = `cluster-${i >>> 17}`;
  return {
    v: 1,
    type: 'workload',
    kind: 'pod',
    cluster: network,
    uid: uidOf(i),
    name: `payments-api-${(i >>> 3).toString(36)}-${(i * 7).toString(36)}`,
    namespace: `team-${namespace}`,
    node: `${network}-node-${i % 200}`,
    hostNetwork: false,
    labels: {
      'app.kubernetes.io/name': `app-${namespace % 150}`,
      'app.kubernetes.io/component': i % 3 === 0 ? 'api' : 'worker',
      'pod-template-hash': ((i >>> 3) + revision * 1000).toString(16),
    },
    annotations: {},
    addresses: Array.from({ length: Math.min(moves, 2) + 1 }, (_, back) => {
      const move = moves - back;
      const sinceMs = beginMs + i + move * 60_000;
      return {
        ip: ipOf(i, move),
        network,
        sinceMs,
        ...(back === 0 ? {} : { untilMs: sinceMs + 59_000 }),
      };
    }),
    sinceMs: beginMs + i,
  };
}

const labelled =
  (prefix: string): LabelsOf =>
  ({ labels }) => ({
    labels: {
      app: `${prefix}${labels['app.kubernetes.io/name'] ?? ''}`,
      role: labels['app.kubernetes.io/component'] ?? '',
    },
  });

/** Runs `work` while others want their turn as often as they can get it; returns how long one had to wait at most, ms. */
async function longestWait(work: () => Promise<void>): Promise<number> {
  let isRunning = true;
  let longest = 0;
  let last = performance.now();
  const look = (): void => {
    const now = performance.now();
    longest = Math.max(longest, now - last);
    last = now;
    if (isRunning) setImmediate(look);
  };
  setImmediate(look);
  await work();
  isRunning = false;
  return Math.max(longest, performance.now() - last);
}

export async function benchUpdates(workloads: number): Promise<UpdateResult> {
  const inventory = new Inventory({ maxIntervalsPerAddress: 64, labelsOf: labelled('') });
  globalThis.gc?.();
  const before = process.memoryUsage();
  let longestFillMs = 0;
  const apply = (event: WorkloadEvent): number => {
    const key = inventoryKey(event);
    const begin = performance.now();
    inventory.apply(key, event, 'bench');
    return performance.now() - begin;
  };
  for (let i = 0; i < workloads; i++) longestFillMs = Math.max(longestFillMs, apply(pod(i, 0, 0)));
  globalThis.gc?.();
  const after = process.memoryUsage();
  let longestUpdateMs = 0;
  let busyMs = 0;
  for (let update = 0; update < updateCount; update++) {
    const i = Math.imul(update, 2654435761) >>> 0;
    const turn = Math.floor(update / workloads);
    // Most get another address, some other labels.
    const tookMs = apply(
      pod(i % workloads, update % 5 === 0 ? turn : turn + 1, update % 5 === 0 ? turn + 1 : 0),
    );
    busyMs += tookMs;
    longestUpdateMs = Math.max(longestUpdateMs, tookMs);
  }
  const begin = performance.now();
  const longestRelabelMs = await longestWait(() => inventory.relabel(labelled('x-')));
  return {
    updatesPerSecond: (updateCount / busyMs) * 1000,
    longestFillMs,
    longestUpdateMs,
    longestRelabelMs,
    relabelMs: performance.now() - begin,
    heapBytesPerWorkload: (after.heapUsed - before.heapUsed) / workloads,
    flatBytesPerWorkload: (after.external - before.external) / workloads,
  };
}

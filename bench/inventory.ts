/**
 * Benches of the inventory at 1,000, 100,000 and 1,000,000 workloads, each task in a process of its own (see
 * inventory-process.ts), so that memory is its own too.
 */
import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { LookupResult } from './inventory-lookups.ts';
import type { UpdateResult } from './inventory-updates.ts';
import type { Figure } from './report.ts';

const run = promisify(execFile);
const program = fileURLToPath(new URL('./inventory-process.ts', import.meta.url));
const flowCount = 2_000_000;

async function task<T>(name: string, workloads: number, ...more: readonly string[]): Promise<T> {
  const { stdout } = await run(process.execPath, [program, name, String(workloads), ...more], {
    maxBuffer: 1 << 24,
  });
  return JSON.parse(stdout) as T;
}

const mega = (bytes: number): number => bytes / 2 ** 20;

async function lookups(workloads: number): Promise<Figure[]> {
  const result = await task<LookupResult>('lookups', workloads);
  const at = `${workloads.toLocaleString('en')} workloads x 10 intervals`;
  const against = 'Map of arrays';
  return [
    {
      name: `lookup, ${at}`,
      value: 1e9 / result.indexPerSecond,
      unit: 'ns',
      baseline: 1e9 / result.mapPerSecond,
      against,
    },
    {
      name: `lookup of frequent ones, ${at}`,
      value: 1e9 / result.indexSkewedPerSecond,
      unit: 'ns',
      baseline: 1e9 / result.mapSkewedPerSecond,
      against,
    },
    {
      name: `memory, ${at}`,
      value: result.indexBytesPerInterval,
      unit: 'bytes/interval',
      baseline: result.mapBytesPerInterval,
      against,
    },
  ];
}

interface StartResult {
  readonly seconds: number;
  readonly peakBytes: number;
}

interface RateResult {
  readonly flowsPerSecond: number;
}

async function rateOf(workloads: number, dir: string): Promise<{ start: StartResult; rate: RateResult }> {
  await task('fill', workloads, dir, String(flowCount));
  return {
    start: await task<StartResult>('start', workloads, dir),
    rate: await task<RateResult>('rate', workloads, dir),
  };
}

export async function benchInventory(quick: boolean): Promise<Figure[]> {
  const largest = quick ? 100_000 : 1_000_000;
  const figures: Figure[] = [];
  for (const workloads of [1_000, 100_000, 1_000_000])
    if (workloads <= largest) figures.push(...(await lookups(workloads)));
  const updates = await task<UpdateResult>('updates', largest);
  const many = largest.toLocaleString('en');
  figures.push(
    { name: `changes of ${many} workloads`, value: updates.updatesPerSecond, unit: 'changes/s' },
    { name: 'longest stall of a reader by a change', value: updates.longestUpdateMs, unit: 'ms' },
    { name: `longest stall while ${many} are relabelled`, value: updates.longestRelabelMs, unit: 'ms' },
  );
  const folder = await mkdtemp(join(tmpdir(), 'eastwest-bench-inventory-'));
  try {
    const few = await rateOf(1_000, join(folder, 'few'));
    const all = await rateOf(largest, join(folder, 'all'));
    figures.push(
      { name: `enricher ready with ${many} workloads`, value: all.start.seconds, unit: 's' },
      { name: `its peak memory`, value: mega(all.start.peakBytes), unit: 'MiB' },
      {
        name: `enrichment, ${many} workloads`,
        value: all.rate.flowsPerSecond,
        unit: 'flows/s',
        baseline: few.rate.flowsPerSecond,
        against: '1,000 workloads',
      },
    );
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
  return figures;
}

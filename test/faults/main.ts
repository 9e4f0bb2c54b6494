/**
 * `npm run faults -- --runs 200`: many seeded runs of the pipeline under faults, half over each bus. `--seed embedded-7`
 * repeats one; `--bus embedded|kafka` chooses; `--from 100` begins with that number; `--json` prints an object a line.
 * `--list` runs nothing and says which seeds aim at what. `--break token|commit-first` makes the enrichers wrong on purpose. Ends with 1 when a run went wrong.
 */
import { parseArgs } from 'node:util';
import { startClickHouse } from '../support/clickhouse.ts';
import { startKafka } from '../support/kafka.ts';
import { type BreakName, breaks, isBreak } from './breaks.ts';
import { aimNames, aimsOf } from './cover.ts';
import { type Ground, type RunResult, runFaults } from './harness.ts';

const { values: options } = parseArgs({
  options: {
    runs: { type: 'string', default: '20' },
    bus: { type: 'string', default: 'both' },
    seed: { type: 'string' },
    from: { type: 'string', default: '1' },
    break: { type: 'string' },
    list: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
  },
});

const busNames = ['embedded', 'kafka'] as const;
type BusName = (typeof busNames)[number];

function seedsOf(bus: BusName): string[] {
  if (options.seed !== undefined) return options.seed.startsWith(bus) ? [options.seed] : [];
  if (options.bus !== 'both' && options.bus !== bus) return [];
  const runs = Number(options.runs) / (options.bus === 'both' ? 2 : 1);
  return Array.from({ length: Math.ceil(runs) }, (_, i) => `${bus}-${i + Number(options.from)}`);
}

function breakOf(name: string | undefined): BreakName | undefined {
  if (name === undefined || isBreak(name)) return name;
  process.stderr.write(`--break is one of ${Object.keys(breaks).join(', ')}\n`);
  process.exit(2);
}

async function groundOf(bus: BusName): Promise<Ground | string> {
  if (bus === 'embedded') return { clickhouse: await startClickHouse(), kafka: null };
  const kafka = await startKafka();
  return 'skip' in kafka ? kafka.skip : { clickhouse: await startClickHouse(), kafka };
}

function say(result: RunResult, seconds: number): void {
  if (options.json) {
    process.stdout.write(`${JSON.stringify({ ...result, seconds })}\n`);
    return;
  }
  const outcome = result.differences.length === 0 ? 'exact' : `${result.differences.length} WRONG`;
  process.stdout.write(
    `${result.seed.padEnd(14)} ${outcome.padEnd(10)} ${seconds.toFixed(1).padStart(5)} s  ${result.faults.join('; ')}\n`,
  );
  for (const difference of result.differences.slice(0, 5)) process.stdout.write(`    ${difference}\n`);
}

if (options.list) {
  for (const aim of aimNames) {
    const seeds = busNames.flatMap(seedsOf).filter((seed) => aimsOf(seed).includes(aim));
    process.stdout.write(`${aim.padEnd(38)} ${seeds.join(' ')}\n`);
  }
  process.exit(0);
}
const broken = breakOf(options.break);
if (broken !== undefined) process.stderr.write(`wrong on purpose: ${breaks[broken].what}\n`);
let wrong = 0;
let ran = 0;
for (const bus of busNames) {
  const seeds = seedsOf(bus);
  if (seeds.length === 0) continue;
  const ground = await groundOf(bus);
  if (typeof ground === 'string') {
    process.stderr.write(`left out the runs over ${bus}: ${ground}\n`);
    continue;
  }
  try {
    for (const seed of seeds) {
      const begin = performance.now();
      ran++;
      try {
        const result = await runFaults(ground, seed, broken === undefined ? {} : { break: broken });
        if (result.differences.length > 0) wrong++;
        say(result, (performance.now() - begin) / 1000);
      } catch (error) {
        wrong++;
        process.stdout.write(`${seed}: ${error instanceof Error ? error.message : error}\n`);
      }
    }
  } finally {
    await ground.clickhouse.stop();
    await ground.kafka?.stop();
  }
}
process.stderr.write(`${ran} runs, ${wrong} wrong\n`);
process.exit(wrong === 0 && ran > 0 ? 0 : 1);

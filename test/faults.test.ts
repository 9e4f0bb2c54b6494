/** Processes die and freeze at seeded moments, and every edge still adds up to exactly what was sent. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { aimNames, aimsOf } from './faults/cover.ts';
import type { Fault } from './faults/faults.ts';
import { type Ground, type RunOptions, type RunResult, runFaults } from './faults/harness.ts';
import { startClickHouse } from './support/clickhouse.ts';
import { startKafka } from './support/kafka.ts';

/** Ten of each, so that everything is aimed at; a broker that dies takes half a minute, so it does once. */
const embeddedRuns = [1, 4, 8, 9, 16, 23, 27, 28, 30, 40];
const kafkaRuns = [3, 5, 7, 9, 13, 14, 22, 26, 29, 30];

async function run(
  ground: Ground,
  seed: string,
  diagnostic: (text: string) => void,
  options: RunOptions = {},
): Promise<RunResult> {
  const result = await runFaults(ground, seed, options);
  const { faults, reached, flowCount, lateCount, repeatCount } = result;
  diagnostic(
    `${flowCount} flows, ${lateCount} of them late, ${repeatCount} batches sent again; ${faults.join('; ')}; reached: ${reached.join(', ')}`,
  );
  return result;
}

async function runsRight(ground: Ground, seed: string, diagnostic: (text: string) => void): Promise<void> {
  const { faults, differences } = await run(ground, seed, diagnostic);
  assert.deepEqual(differences, [], `seed ${seed}: ${faults.join('; ')}`);
}

test('the runs aim at everything', () => {
  const seeds = [...embeddedRuns.map((i) => `embedded-${i}`), ...kafkaRuns.map((i) => `kafka-${i}`)];
  const aimed = new Set(seeds.flatMap(aimsOf));
  assert.deepEqual(
    aimNames.filter((aim) => !aimed.has(aim)),
    [],
  );
});

describe('over the embedded bus', () => {
  let ground: Ground;
  before(async () => {
    ground = { clickhouse: await startClickHouse(), kafka: null };
  });
  after(() => ground.clickhouse.stop());
  for (const i of embeddedRuns)
    test(`all is counted once, whatever dies: seed embedded-${i}`, (context) =>
      runsRight(ground, `embedded-${i}`, (text) => context.diagnostic(text)));

  /** Where a right enricher may die and a wrong one may not: rows are in the store and the bus doesn't know; none are, and it knows of the plan. */
  const moments = { token: 'enrich.flows-written', 'commit-first': 'enrich.planned' } as const;
  for (const name of ['token', 'commit-first'] as const)
    test(`the runs can tell: an enricher that is wrong on purpose (${name}) makes one wrong`, async (context) => {
      const faults: Fault[] = [{ kind: 'failpoint', of: 'enrich-0', what: `${moments[name]}=kill@2` }];
      const say = (text: string): void => context.diagnostic(text);
      const { reached, differences } = await run(ground, 'embedded-wrong', say, { break: name, faults });
      assert.deepEqual(reached, [`enrich-0 ${moments[name]}`]);
      assert.ok(differences.length > 1, 'edges are wrong');
    });
});

describe('over Kafka', () => {
  let ground: Ground | { skip: string };
  before(async () => {
    const kafka = await startKafka();
    ground = 'skip' in kafka ? kafka : { clickhouse: await startClickHouse(), kafka };
  });
  after(async () => {
    if ('skip' in ground) return;
    await ground.clickhouse.stop();
    await ground.kafka?.stop();
  });
  for (const i of kafkaRuns)
    test(`all is counted once, whatever dies: seed kafka-${i}`, async (context) => {
      if ('skip' in ground) context.skip(ground.skip);
      else await runsRight(ground, `kafka-${i}`, (text) => context.diagnostic(text));
    });
});

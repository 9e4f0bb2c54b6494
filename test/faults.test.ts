/** Processes die and freeze at seeded moments, and every edge still adds up to exactly what was sent. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { type Ground, runFaults } from './faults/harness.ts';
import { startClickHouse } from './support/clickhouse.ts';
import { startKafka } from './support/kafka.ts';

/** Ten of each, so that every kind of fault is among them; a broker that dies takes half a minute, so it does once. */
const embeddedRuns = [1, 2, 4, 5, 6, 7, 8, 9, 10, 12];
const kafkaRuns = [5, 6, 8, 13, 14, 16, 17, 22, 23, 26];

async function run(ground: Ground, seed: string, diagnostic: (text: string) => void): Promise<void> {
  const { faults, flowCount, lateCount, repeatCount, differences } = await runFaults(ground, seed);
  diagnostic(
    `${flowCount} flows, ${lateCount} of them late, ${repeatCount} batches sent again; ${faults.join('; ')}`,
  );
  assert.deepEqual(differences, [], `seed ${seed}: ${faults.join('; ')}`);
}

describe('over the embedded bus', () => {
  let ground: Ground;
  before(async () => {
    ground = { clickhouse: await startClickHouse(), kafka: null };
  });
  after(() => ground.clickhouse.stop());
  for (const i of embeddedRuns)
    test(`all is counted once, whatever dies: seed embedded-${i}`, (context) =>
      run(ground, `embedded-${i}`, (text) => context.diagnostic(text)));
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
      else await run(ground, `kafka-${i}`, (text) => context.diagnostic(text));
    });
});

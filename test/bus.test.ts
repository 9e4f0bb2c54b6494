/** Both buses against real processes, and Kafka against a real broker that is killed. */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import pino from 'pino';
import type { Bus } from '../lib/bus/bus.ts';
import { type BusConfig, busConfig } from '../lib/bus/config.ts';
import { conformance } from '../lib/bus/conformance.ts';
import { makeGroup, makeTopic, outgoing, RecordingMember, until } from '../lib/bus/conformance-support.ts';
import { type CrashTestBus, crashConformance } from '../lib/bus/crash-conformance.ts';
import { openBus } from '../lib/bus/open.ts';
import { type KafkaForTests, startKafka } from './support/kafka.ts';

const log = pino({ level: 'silent' });

async function makeBus(settings: Partial<BusConfig>): Promise<CrashTestBus> {
  const dataDir = await mkdtemp(join(tmpdir(), 'eastwest-bus-'));
  const opened: Bus[] = [];
  const open = async (): Promise<Bus> => {
    const bus = await openBus(busConfig(settings), { dataDir, log, clientId: 'bus-test' });
    opened.push(bus);
    return bus;
  };
  return {
    bus: await open(),
    open,
    settings,
    dataDir,
    close: async () => {
      for (const bus of opened) await bus.close();
      await rm(dataDir, { recursive: true, force: true });
    },
  };
}

crashConformance('embedded bus', () =>
  makeBus({ kind: 'embedded', sessionTimeoutMs: 1_000, heartbeatIntervalMs: 100 }),
);

const kafka = await startKafka();
if ('skip' in kafka) {
  test('Kafka bus', { skip: kafka.skip }, () => undefined);
} else {
  after(() => kafka.stop());
  // A broker that is not ours has its own lower limit for sessions.
  const isOurs = process.env.KAFKA_BROKERS === undefined;
  const settings: Partial<BusConfig> = {
    kind: 'kafka',
    brokers: kafka.brokers,
    sessionTimeoutMs: isOurs ? 1_500 : 6_000,
    heartbeatIntervalMs: 100,
    fetchWaitMs: 50,
  };
  conformance('Kafka bus', () => makeBus(settings));
  crashConformance('Kafka bus', () => makeBus(settings));
  if (isOurs) brokerTests(kafka, settings);
}

function brokerTests(broker: KafkaForTests, settings: Partial<BusConfig>): void {
  describe('Kafka bus, with a broker that is killed', () => {
    test('a member goes on after the broker was killed and came back, and nothing acknowledged is lost', async (t) => {
      const made = await makeBus(settings);
      t.after(() => made.close());
      const topic = await makeTopic(made.bus);
      const member = await new RecordingMember().join(made.bus, makeGroup(), topic);
      await until('it holds all', () => member.held.size === 4);
      const acknowledged: string[] = [];
      let stopped = false;
      t.after(() => {
        stopped = true;
      });
      const writing = (async () => {
        for (let number = 0; !stopped; number++) {
          // A refusal leaves it open whether the message is there; a writer then sends it again.
          while (!stopped) {
            try {
              await made.bus.append(topic, [outgoing('k', `${number}`)]);
              acknowledged.push(`${number}`);
              break;
            } catch {}
          }
        }
      })();
      await until('some messages', () => acknowledged.length >= 20);
      await broker.kill();
      await broker.start();
      const count = acknowledged.length;
      await until('more messages', () => acknowledged.length >= count + 20);
      stopped = true;
      await writing;
      await until('all of them', () => acknowledged.every((value) => member.texts().includes(value)));
      assert.ok(member.errors.length > 0, 'the failure was told');
      const first = member.texts().filter((value, at, all) => all.indexOf(value) === at);
      assert.deepEqual(
        first,
        [...first].sort((a, b) => Number(a) - Number(b)),
        'in order',
      );
      const partition = member.received[0]?.partition ?? 0;
      // It may have to join anew first.
      await until('a commit', () =>
        member.commit(topic, partition, 1, 'after').then(
          () => true,
          () => false,
        ),
      );
    });

    test('a bus that is opened while the broker is away waits for it', async (t) => {
      const made = await makeBus(settings);
      t.after(() => made.close());
      const known = await makeTopic(made.bus);
      await made.bus.append(known, [outgoing('k', 'early')]);
      await broker.kill();
      const late = await makeBus({ ...settings, appendTimeoutMs: 1_000 });
      t.after(() => late.close());
      const member = await new RecordingMember().join(late.bus, makeGroup(), known);
      let caughtUp = false;
      const seen: number[] = [];
      await late.bus.tail({
        topic: known,
        onMessages: (_, messages) => {
          seen.push(...messages.map(({ offset }) => offset));
        },
        onCaughtUp: () => {
          caughtUp = true;
        },
        onError: () => undefined,
      });
      const topic = makeTopic(late.bus);
      await until('the failure is told', () => member.errors.length > 0);
      await assert.rejects(late.bus.append(known, [outgoing('k', 'refused')]));
      assert.equal(caughtUp, false);
      await broker.start();
      await topic;
      await until('the message', () => member.texts()[0] === 'early');
      await until('caught up', () => caughtUp);
      assert.equal(seen[0], 0);
    });
  });
}

/** Kubelink as a process that is killed, over both buses, and with a bus that is away. */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, beforeEach, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import pino from 'pino';
import type { BusMessage } from '../lib/bus/bus.ts';
import { type BusConfig, busConfig } from '../lib/bus/config.ts';
import { openBus } from '../lib/bus/open.ts';
import type { WorkloadEvent } from '../lib/inventory/events.ts';
import { topics } from '../schemas/topics.ts';
import { type KafkaForTests, startKafka } from './support/kafka.ts';
import { type ServiceProcess, startService } from './support/service-process.ts';

const deadlineMs = 30_000;
const log = pino({ level: 'silent' });

async function until(condition: () => boolean | Promise<boolean>, what: () => string): Promise<void> {
  const deadline = performance.now() + deadlineMs;
  while (!(await condition())) {
    if (performance.now() > deadline) assert.fail(`not within ${deadlineMs} ms: ${what()}`);
    await delay(50);
  }
}

/** The newest pod events of one cluster, followed from the begin of the topic. */
class Pods {
  readonly newest = new Map<string, WorkloadEvent>();
  /** Events taken. */
  count = 0;
  readonly #prefix: string;

  constructor(cluster: string) {
    this.#prefix = `workload/${cluster}/pod/`;
  }

  take(messages: readonly BusMessage[]): void {
    for (const { key, value } of messages) {
      if (!key?.startsWith(this.#prefix)) continue;
      this.count++;
      const name = key.slice(this.#prefix.length);
      if (value === null) this.newest.delete(name);
      else this.newest.set(name, JSON.parse(Buffer.from(value).toString()));
    }
  }

  /** `a b -c`: names, those that have ended with a minus. */
  text(): string {
    return [...this.newest.values()]
      .map(({ name, untilMs }) => (untilMs === undefined ? name : `-${name}`))
      .sort()
      .join(' ');
  }
}

function suite(title: string, settings: Partial<BusConfig>): void {
  describe(title, () => {
    let folder: string;
    let cluster: string;
    let running: ServiceProcess | undefined;

    const start = async (): Promise<ServiceProcess> => {
      running = await startService('kubelink', {
        EASTWEST_RUNTIME_DATA_DIR: join(folder, 'data'),
        EASTWEST_BUS_KIND: settings.kind ?? 'embedded',
        ...(settings.brokers === undefined ? {} : { EASTWEST_BUS_BROKERS: JSON.stringify(settings.brokers) }),
        EASTWEST_KUBELINK_RESCAN_MS: '200',
        EASTWEST_KUBELINK_SOURCES: JSON.stringify([
          { kind: 'manifests', path: join(folder, 'manifests'), cluster, podCidrs: ['10.1.0.0/16'] },
        ]),
      });
      return running;
    };
    const ready = async ({ probes, output }: ServiceProcess): Promise<void> => {
      await until(async () => (await fetch(`${probes}/readyz`)).ok, output);
    };
    const write = (pods: Readonly<Record<string, string>>): void => {
      const items = Object.entries(pods).map(([name, ip]) => ({
        kind: 'Pod',
        metadata: { name, namespace: 'shop', uid: name, creationTimestamp: '2026-01-01T00:00:00Z' },
        status: { phase: 'Running', startTime: '2026-01-01T00:00:01Z', podIPs: [{ ip }] },
      }));
      writeFileSync(join(folder, 'manifests', 'pods.json'), JSON.stringify({ kind: 'List', items }));
    };
    const follow = async (): Promise<{ pods: Pods; close(): Promise<void> }> => {
      const bus = await openBus(busConfig(settings), {
        dataDir: join(folder, 'data'),
        log,
        clientId: 'test',
      });
      const pods = new Pods(cluster);
      const tail = await bus.tail({
        topic: topics.inventory,
        onMessages: (_, messages) => pods.take(messages),
        onCaughtUp: () => {},
        onError: () => {},
      });
      const close = async (): Promise<void> => {
        await tail.close();
        await bus.close();
      };
      return { pods, close };
    };

    beforeEach(() => {
      folder = mkdtempSync(join(tmpdir(), 'eastwest-kubelink-'));
      cluster = `c-${randomUUID().slice(0, 8)}`;
      mkdirSync(join(folder, 'manifests'));
      mkdirSync(join(folder, 'data'));
    });

    afterEach(async () => {
      await running?.kill();
      running = undefined;
      rmSync(folder, { recursive: true, force: true });
    });

    test('a deletion during the time after SIGKILL is published at the next start, and nothing is published twice', async () => {
      write({ a: '10.1.0.1', b: '10.1.0.2', c: '10.1.0.3' });
      const first = await start();
      await ready(first);
      const { pods, close } = await follow();
      try {
        await until(
          () => pods.text() === 'a b c',
          () => pods.text(),
        );
        write({ a: '10.1.0.1', b: '10.1.0.9', c: '10.1.0.3' });
        await until(() => pods.newest.get('b')?.addresses.length === 2, first.output);
        await first.kill();
        write({ a: '10.1.0.1', b: '10.1.0.9' });
        const before = Date.now();
        await ready(await start());
        await until(
          () => pods.text() === '-c a b',
          () => pods.text(),
        );
        const ended = pods.newest.get('c');
        assert.ok((ended?.untilMs ?? 0) >= before);
        assert.equal(ended?.addresses[0]?.untilMs, ended?.untilMs);
        assert.deepEqual(
          pods.newest.get('b')?.addresses.map(({ ip, untilMs }) => [ip, untilMs === undefined]),
          [
            ['10.1.0.2', false],
            ['10.1.0.9', true],
          ],
        );
        // Three at first, one readdressed, one deleted.
        assert.equal(pods.count, 5);
        assert.equal(await running?.stop(), 0);
      } finally {
        await close();
      }
    });

    test('a malformed manifest is named in the log and in the metrics, and the others go on', async () => {
      write({ a: '10.1.0.1' });
      const process = await start();
      await ready(process);
      writeFileSync(
        join(folder, 'manifests', 'more.yaml'),
        'kind: Pod\nmetadata: { name: good }\n---\nkind: Pod\nmetadata: { name: bad }\nstatus: { podIPs: [{ ip: x }] }\n',
      );
      const { pods, close } = await follow();
      try {
        await until(
          () => pods.text() === 'a good',
          () => pods.text(),
        );
        assert.match(
          process.output(),
          /more\.yaml: document 2 \(line 4\): Pod\/default\/bad: status\.podIPs\[0\]\.ip/,
        );
        const metrics = await (await fetch(`${process.probes}/metrics`)).text();
        assert.match(
          metrics,
          new RegExp(`eastwest_kubelink_malformed_documents{source="manifests:${cluster}"} 1`),
        );
      } finally {
        await close();
      }
    });
  });
}

function brokerSuite(broker: KafkaForTests): void {
  test('kubelink waits for a broker that is away, says so, and goes on by itself', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'eastwest-kubelink-'));
    writeFileSync(join(folder, 'hosts.yaml'), 'hosts: [{ name: db, addresses: [10.9.0.1] }]');
    await broker.kill();
    const settings = {
      EASTWEST_RUNTIME_DATA_DIR: folder,
      EASTWEST_BUS_KIND: 'kafka',
      EASTWEST_BUS_BROKERS: JSON.stringify(broker.brokers),
      EASTWEST_KUBELINK_SOURCES: JSON.stringify([{ kind: 'hosts', path: join(folder, 'hosts.yaml') }]),
    };
    const impatient = await startService('kubelink', settings);
    const process = await startService('kubelink', settings);
    try {
      assert.equal(await impatient.stop(), 0);
      const readyz = await fetch(`${process.probes}/readyz`);
      assert.equal(readyz.status, 503);
      assert.match(await readyz.text(), /the inventory topic was not read yet/);
      await broker.start();
      await until(async () => (await fetch(`${process.probes}/readyz`)).ok, process.output);
    } finally {
      await impatient.kill();
      await process.kill();
      rmSync(folder, { recursive: true, force: true });
    }
  });
}

suite('kubelink over the embedded bus', { kind: 'embedded' });

const kafka = await startKafka();
if ('skip' in kafka) {
  test('kubelink over Kafka', { skip: kafka.skip }, () => undefined);
} else {
  after(() => kafka.stop());
  suite('kubelink over Kafka', { kind: 'kafka', brokers: kafka.brokers });
  if (process.env.KAFKA_BROKERS === undefined) brokerSuite(kafka);
}

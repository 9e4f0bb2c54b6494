/** Wires the demo: the generated bank, streamed in real time through the doors that real agents and kubelinks use. */
import { setTimeout as sleep } from 'node:timers/promises';
import { BusConfig } from '../lib/bus/config.ts';
import { openBus } from '../lib/bus/open.ts';
import { topicSpecs } from '../lib/bus/topics.ts';
import { RuntimeConfig } from '../lib/runtime/config.ts';
import { defineService } from '../lib/runtime/service.ts';
import { DemoConfig } from './config.ts';
import { startDelivery } from './deliver.ts';
import { worldOf } from './index.ts';
import { readMemory } from './memory.ts';
import { makeMetrics } from './metrics.ts';
import { Publisher } from './publish.ts';
import { resumeEstate, stream } from './stream.ts';

/** Wait between tries to reach the bus at start, ms. */
const busRetryMs = 1000;

export const service = defineService({
  name: 'demo',
  description: 'Streams the generated bank through the same doors as real agents.',
  sections: { runtime: RuntimeConfig, bus: BusConfig, demo: DemoConfig },
  async run({ config, log, metrics: registry, readiness, signal }) {
    const metrics = makeMetrics(registry);
    const { demo } = config;
    readiness.set('inventory', 'not published yet');
    const bus = await openBus(config.bus, {
      dataDir: config.runtime.dataDir,
      log,
      clientId: 'eastwest-demo',
    });
    try {
      const { tag } = worldOf(demo);
      const memory = await untilItWorks(
        signal,
        async () => {
          await bus.ensureTopics(topicSpecs(config.bus));
          return readMemory(bus, tag);
        },
        (error) => log.warn({ err: error }, 'the bus is not there yet'),
      );
      if (memory === null) return;
      const estate = resumeEstate(demo, memory.inventory, Date.now());
      const { values, ended } = memory.inventory;
      const publisher = new Publisher({
        bus,
        log,
        metrics,
        signal,
        values,
        ended,
        historyMs: demo.historyMs,
      });
      const delivery = startDelivery({
        url: demo.ingestUrl,
        token: demo.ingestToken,
        laneCount: demo.laneCount,
        requestTimeoutMs: demo.requestTimeoutMs,
        log,
        metrics,
        signal,
      });
      await stream({ config: demo, estate, memory, publisher, delivery, log, metrics, readiness, signal });
      await delivery.closed();
    } finally {
      await bus.close();
    }
  },
});

/** Tries until it succeeds; null when the process shall end before that. */
async function untilItWorks<T>(
  signal: AbortSignal,
  work: () => Promise<T>,
  onError: (error: unknown) => void,
): Promise<T | null> {
  while (!signal.aborted) {
    try {
      return await work();
    } catch (error) {
      onError(error);
      await sleep(busRetryMs, undefined, { signal }).catch(() => undefined);
    }
  }
  return null;
}

/** Wires the enricher. */
import { setTimeout as sleep } from 'node:timers/promises';
import { BusConfig } from '../../lib/bus/config.ts';
import { openBus } from '../../lib/bus/open.ts';
import { topicSpecs } from '../../lib/bus/topics.ts';
import { countBuffersAsMemory } from '../../lib/runtime/collector.ts';
import { RuntimeConfig } from '../../lib/runtime/config.ts';
import { defineService } from '../../lib/runtime/service.ts';
import { StoreConfig } from '../../lib/store/config.ts';
import { openStore } from '../../lib/store/open.ts';
import { Catalog } from './catalog.ts';
import { EnrichConfig } from './config.ts';
import { startEnricher } from './enricher.ts';
import { makeMetrics } from './metrics.ts';
import { openWorld } from './world.ts';

/** Wait between looks at a store that is away, ms. */
const storePollMs = 500;

export const service = defineService({
  name: 'enrich',
  description: 'Joins flows with inventory and policy as of their own time and writes them to the store.',
  sections: { runtime: RuntimeConfig, bus: BusConfig, store: StoreConfig, enrich: EnrichConfig },
  async run({ config, log, metrics: registry, readiness, memory, signal }) {
    countBuffersAsMemory();
    const metrics = makeMetrics(registry);
    readiness.set('store', 'not reached yet');
    readiness.set('inventory', 'not read yet');
    readiness.set('flows', 'not subscribed yet');
    const store = openStore(config.store, { log });
    const bus = await openBus(config.bus, {
      dataDir: config.runtime.dataDir,
      log,
      clientId: 'eastwest-enrich',
    });
    try {
      await bus.ensureTopics(topicSpecs(config.bus));
      while (!signal.aborted && !(await store.ping())) await sleep(storePollMs);
      if (signal.aborted) return;
      readiness.set('store', true);

      const world = await openWorld({
        bus,
        maxIntervalsPerAddress: config.enrich.maxIntervalsPerAddress,
        log,
        metrics,
      });
      readiness.set('inventory', true);
      const catalog = new Catalog(store, world.inventory);

      const failed = new AbortController();
      let failure: Error | undefined;
      const enricher = await startEnricher({
        config: config.enrich,
        bus,
        store,
        world,
        catalog,
        metrics,
        log,
        isMemoryTight: memory.isTight,
        onFailure: (error) => {
          failure ??= error;
          failed.abort();
        },
      });
      readiness.set('flows', true);
      const ended = AbortSignal.any([signal, failed.signal]);
      while (!ended.aborted) {
        if (enricher.leads()) {
          await catalog.flush(world.policies.documents).catch((error: unknown) => {
            log.warn({ err: error }, 'workloads and rules are not all in the store yet, tried again');
          });
        }
        // Flows that are older are refused, so nobody asks for what ended before.
        world.inventory.evictBefore(Date.now() - config.enrich.maxAgeMs);
        await sleep(config.enrich.catalogFlushMs, undefined, { signal: ended }).catch(() => undefined);
      }
      await enricher.close();
      await world.close();
      if (failure !== undefined) throw failure;
    } finally {
      await bus.close();
      await store.close();
    }
  },
});

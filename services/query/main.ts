/** The query service: HTTP API, SQL endpoint and the page. */
import { setTimeout as delay } from 'node:timers/promises';
import type { Bus } from '../../lib/bus/bus.ts';
import { BusConfig } from '../../lib/bus/config.ts';
import { openBus } from '../../lib/bus/open.ts';
import { topicSpecs } from '../../lib/bus/topics.ts';
import { RuntimeConfig } from '../../lib/runtime/config.ts';
import { explainListenError } from '../../lib/runtime/http.ts';
import { defineService } from '../../lib/runtime/service.ts';
import { StoreConfig, storeUrl } from '../../lib/store/config.ts';
import { openStore } from '../../lib/store/open.ts';
import { topics } from '../../schemas/topics.ts';
import { buildQueryApp } from './app.ts';
import { QueryConfig } from './config.ts';
import { followPolicies } from './policies.ts';
import { makePutWriter } from './put/writer.ts';
import { storeState } from './routes/probes.ts';

/** How often the store is looked at for /readyz of the process, milliseconds. */
const watchIntervalMs = 2_000;

export const service = defineService({
  name: 'query',
  description: 'HTTP API, SQL endpoint and the page',
  sections: { query: QueryConfig, store: StoreConfig, bus: BusConfig, runtime: RuntimeConfig },
  async run({ config, log, metrics, readiness, signal }) {
    readiness.set('http', 'not listening yet');
    readiness.set('store', 'not asked yet');
    const store = openStore(config.store, { log });
    const { dataDir } = config.runtime;
    const open = (): Promise<Bus> => openBus(config.bus, { dataDir, log, clientId: 'eastwest-query' });
    const putWriter = makePutWriter({
      open,
      topic: topics.inventoryPut,
      topicSpecs: topicSpecs(config.bus),
      timeoutMs: config.query.put.timeoutMs,
    });
    const openWithTopics = async (): Promise<Bus> => {
      const bus = await open();
      try {
        await bus.ensureTopics(topicSpecs(config.bus));
        return bus;
      } catch (error) {
        await bus.close();
        throw error;
      }
    };
    const policies = followPolicies({
      open: openWithTopics,
      onError: (error) => log.warn({ err: error }, 'following the policy failed, goes on'),
    });
    const app = await buildQueryApp({
      config: config.query,
      store,
      sqlServer: { url: storeUrl(config.store), database: config.store.database, ...config.store.reader },
      minuteDays: config.store.retention.minuteDays,
      registry: metrics,
      log,
      putWriter,
      withBus: async (work) => {
        const bus = await openWithTopics();
        try {
          return await work(bus);
        } finally {
          await bus.close();
        }
      },
      policies,
    });
    const { host, port } = config.query;
    try {
      await app.listen({ host, port });
    } catch (error) {
      throw explainListenError(error, { host, port, who: 'query (page and API)', option: 'query.port' });
    }
    readiness.set('http', true);
    log.info({ url: app.listeningOrigin }, 'the page and the API are there');
    try {
      while (!signal.aborted) {
        readiness.set('store', await storeState(store));
        await delay(watchIntervalMs, undefined, { signal }).catch(() => undefined);
      }
    } finally {
      await app.close();
      await putWriter.close();
      await policies.close();
      await store.close();
    }
  },
});

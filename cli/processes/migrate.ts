/** Brings the store to this version's tables, once. */
import { setTimeout as delay } from 'node:timers/promises';
import { RuntimeConfig } from '../../lib/runtime/config.ts';
import { OperatorError } from '../../lib/runtime/exit.ts';
import { defineService } from '../../lib/runtime/service.ts';
import { StoreConfig, storeUrl } from '../../lib/store/config.ts';
import { MigrationError, migrate } from '../../lib/store/migrate.ts';
import { openStore } from '../../lib/store/open.ts';

/** How long a store that doesn't answer yet is waited for. */
const storeWaitMs = 30_000;
const storePollMs = 200;

export const service = defineService({
  name: 'migrate',
  description: 'Creates or updates the tables in ClickHouse, sets how long rows are kept, and ends.',
  sections: { runtime: RuntimeConfig, store: StoreConfig },
  async run({ config, log, signal }) {
    const store = openStore(config.store, { log });
    try {
      const deadline = performance.now() + storeWaitMs;
      while (!(await store.ping())) {
        signal.throwIfAborted();
        if (performance.now() > deadline) {
          throw new OperatorError(
            `ClickHouse at ${storeUrl(config.store)} does not answer; start it (eastwest up, eastwest store), or set store.url`,
          );
        }
        await delay(storePollMs, undefined, { signal });
      }
      const { applied, retained } = await migrate(store, { log });
      log.info(
        { applied, retained },
        applied.length === 0 ? 'the tables are up to date' : 'the tables were updated',
      );
    } catch (error) {
      throw error instanceof MigrationError ? new OperatorError(error.message) : error;
    } finally {
      await store.close();
    }
  },
});

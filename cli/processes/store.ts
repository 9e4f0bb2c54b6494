/** The embedded ClickHouse as a process of its own. */

import { RuntimeConfig } from '../../lib/runtime/config.ts';
import { OperatorError } from '../../lib/runtime/exit.ts';
import { defineService } from '../../lib/runtime/service.ts';
import { StoreConfig } from '../../lib/store/config.ts';
import { EmbeddedStoreError, runEmbeddedStore } from '../../lib/store/embedded/server.ts';

export const service = defineService({
  name: 'store',
  description: 'Runs the embedded ClickHouse on 127.0.0.1, with its data in the data folder.',
  sections: { runtime: RuntimeConfig, store: StoreConfig },
  async run({ config, log, readiness, signal }) {
    readiness.set('clickhouse', 'starting');
    try {
      await runEmbeddedStore({
        dataDir: config.runtime.dataDir,
        ...config.store.embedded,
        database: config.store.database,
        log,
        signal,
        onReady: () => readiness.set('clickhouse', true),
      });
    } catch (error) {
      throw error instanceof EmbeddedStoreError ? new OperatorError(error.message) : error;
    }
  },
});

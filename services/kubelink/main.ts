/** Wires kubelink. */
import { once } from 'node:events';
import { BusConfig } from '../../lib/bus/config.ts';
import { openBus } from '../../lib/bus/open.ts';
import { topicSpecs } from '../../lib/bus/topics.ts';
import { RuntimeConfig } from '../../lib/runtime/config.ts';
import { defineService } from '../../lib/runtime/service.ts';
import { KubelinkConfig } from './config.ts';
import { startKubelink } from './kubelink.ts';
import { makeMetrics } from './metrics.ts';
import { makeSources } from './sources/make.ts';

export const service = defineService({
  name: 'kubelink',
  description: 'Publishes who has which address: clusters, VMs, bare metal.',
  sections: { runtime: RuntimeConfig, bus: BusConfig, kubelink: KubelinkConfig },
  async run({ config, log, metrics: registry, readiness, signal }) {
    if (config.kubelink.sources.length === 0) {
      log.warn('no source of inventory is configured (kubelink.sources), so nothing is published');
    }
    let collect = (): void => {};
    const metrics = makeMetrics(registry, () => collect());
    const bus = await openBus(config.bus, {
      dataDir: config.runtime.dataDir,
      log,
      clientId: 'eastwest-kubelink',
    });
    try {
      const options = {
        config: config.kubelink,
        sources: makeSources(config.kubelink, log, bus, registry),
        bus,
        topicSpecs: topicSpecs(config.bus),
        metrics,
        readiness,
        log,
      };
      const kubelink = await startKubelink(options, signal);
      collect = () => kubelink.collect();
      if (!signal.aborted) await once(signal, 'abort');
      await kubelink.stop();
    } finally {
      await bus.close();
    }
  },
});

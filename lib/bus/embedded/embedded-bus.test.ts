import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { busConfig } from '../config.ts';
import { conformance } from '../conformance.ts';
import { EmbeddedBus } from './embedded-bus.ts';

conformance('embedded bus', async () => {
  const dataDir = await mkdtemp(join(tmpdir(), 'eastwest-bus-'));
  const config = busConfig({ sessionTimeoutMs: 1000, heartbeatIntervalMs: 100 });
  const opened: EmbeddedBus[] = [];
  const open = async (): Promise<EmbeddedBus> => {
    const bus = new EmbeddedBus(config, { dataDir, onError: (error) => console.error(error) });
    opened.push(bus);
    return bus;
  };
  return {
    bus: await open(),
    open,
    close: async () => {
      for (const bus of opened) await bus.close();
      await rm(dataDir, { recursive: true, force: true });
    },
  };
});

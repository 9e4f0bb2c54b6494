/** Commands that read or write the bus themselves. */
import { pino } from 'pino';
import type { Bus } from '../lib/bus/bus.ts';
import { BusConfig } from '../lib/bus/config.ts';
import { openBus } from '../lib/bus/open.ts';
import { topicSpecs } from '../lib/bus/topics.ts';
import { loadConfig, RuntimeConfig } from '../lib/runtime/config.ts';
import type { CliDependencies } from './dependencies.ts';

/** Opens the configured bus, with its topics, for the time of `work`. */
export async function withBus<T>(
  dependencies: CliDependencies,
  clientId: string,
  work: (bus: Bus) => Promise<T>,
): Promise<T> {
  const { values: config } = loadConfig(
    { runtime: RuntimeConfig, bus: BusConfig },
    dependencies.inputs(),
    dependencies.sections,
  );
  const log = pino({ level: 'silent' });
  const bus = await openBus(config.bus, { dataDir: config.runtime.dataDir, log, clientId });
  try {
    await bus.ensureTopics(topicSpecs(config.bus));
    return await work(bus);
  } finally {
    await bus.close();
  }
}

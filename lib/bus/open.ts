/** Opens the bus that the configuration names. */
import type { Logger } from 'pino';
import type { Bus } from './bus.ts';
import type { BusConfig } from './config.ts';
import { EmbeddedBus } from './embedded/embedded-bus.ts';

export interface OpenBusOptions {
  /** Folder of the embedded log. */
  readonly dataDir: string;
  readonly log: Logger;
  /** Names this process towards Kafka brokers. */
  readonly clientId: string;
}

/** @throws {Error} when the embedded log cannot be opened. Kafka may be away: every call then waits or rejects. */
export async function openBus(config: BusConfig, options: OpenBusOptions): Promise<Bus> {
  const log = options.log.child({ part: 'bus' });
  const onError = (error: Error): void => log.warn({ err: error }, 'the bus goes on after a failure');
  if (config.kind === 'embedded') return new EmbeddedBus(config, { dataDir: options.dataDir, onError });
  const { openKafkaBus } = await import('./kafka/kafka-bus.ts');
  return openKafkaBus(config, { clientId: options.clientId, log });
}

/** Appends batches straight to the bus, for estates whose agents may reach it. */
import { type Bus, MessageTooLargeError } from '../../lib/bus/bus.ts';
import { topics } from '../../schemas/topics.ts';
import type { Sender } from './deliver.ts';

/** The sender owns the bus and closes it. */
export function createBusSender(bus: Bus, agentId: string): Sender {
  return {
    async send(batch) {
      try {
        await bus.append(topics.flows, [{ key: agentId, value: batch.bytes }]);
        return { kind: 'delivered' };
      } catch (error) {
        const detail = error instanceof Error ? error.message : String(error);
        return error instanceof MessageTooLargeError
          ? { kind: 'refused', detail }
          : { kind: 'retry', cause: 'unreachable', detail };
      }
    },
    close: () => bus.close(),
  };
}

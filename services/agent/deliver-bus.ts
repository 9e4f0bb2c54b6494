/** Appends batches straight to the bus, for estates whose agents may reach it. */
import { type Bus, MessageTooLargeError, type TopicSpec } from '../../lib/bus/bus.ts';
import { topics } from '../../schemas/topics.ts';
import type { Sender } from './deliver.ts';

/** The sender owns the bus and closes it; it makes sure of the topics before the first batch. */
export function createBusSender(bus: Bus, specs: readonly TopicSpec[], agentId: string): Sender {
  let hasTopics = false;
  return {
    async send(batch) {
      try {
        if (!hasTopics) await bus.ensureTopics(specs);
        hasTopics = true;
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

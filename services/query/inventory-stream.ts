/**
 * Everything that is there now, out of the topic `inventory`, event by event. The topic is read twice: the first time for
 * where the newest message of each key lies, the second time for these. So what is held is the keys, and never the events.
 */
import { Compile } from 'typebox/compile';
import type { Bus } from '../../lib/bus/bus.ts';
import { InventoryEvent } from '../../schemas/inventory-event.ts';
import { parsed, readInventory } from './inventory-topic.ts';
import { ProblemError } from './problem.ts';

const inventoryEvent = Compile(InventoryEvent);

/** Offset of the newest message by key, of what is not removed. @throws {ProblemError} over `maxEntities` keys */
async function newestOffsets(
  bus: Bus,
  maxEntities: number,
  signal: AbortSignal,
): Promise<Map<string, number>> {
  const newest = new Map<string, number>();
  await readInventory(bus, signal, (messages) => {
    for (const { key, value, offset } of messages) {
      if (key === null || key.startsWith('watermark/')) continue;
      if (value === null) newest.delete(key);
      else newest.set(key, offset);
    }
    if (newest.size > maxEntities)
      throw new ProblemError(
        'too-large',
        `the inventory has more than ${maxEntities} entities (query.maxInventoryEntities)`,
      );
  });
  return newest;
}

/**
 * Calls `write` with each present event, as JSON on one line; it is waited for before more is read. What changes meanwhile
 * is written as it was or as it is. Resolves with how many were written.
 * @throws {ProblemError} before anything was written, where there are more than `maxEntities`
 */
export async function writePresentEvents(
  bus: Bus,
  maxEntities: number,
  signal: AbortSignal,
  write: (event: string) => Promise<void>,
): Promise<number> {
  const newest = await newestOffsets(bus, maxEntities, signal);
  let count = 0;
  await readInventory(bus, signal, async (messages) => {
    for (const { key, value, offset } of messages) {
      // Something newer has come, and what was newest may be compacted away already: that one counts then.
      const wanted = key === null ? undefined : newest.get(key);
      if (key === null || wanted === undefined || offset < wanted) continue;
      newest.delete(key);
      const event = value === null ? null : parsed(value);
      if (!inventoryEvent.Check(event) || ('untilMs' in event && event.untilMs !== undefined)) continue;
      count++;
      await write(JSON.stringify(event));
    }
  });
  return count;
}

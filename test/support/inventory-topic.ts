/** The topic `inventory` as somebody sees it who reads it from the begin and follows it. */
import pino from 'pino';
import type { Bus, BusMessage } from '../../lib/bus/bus.ts';
import { type BusConfig, busConfig } from '../../lib/bus/config.ts';
import { openBus } from '../../lib/bus/open.ts';
import { topicSpecs } from '../../lib/bus/topics.ts';
import type { InventoryEvent, WorkloadEvent } from '../../lib/inventory/events.ts';
import { topics } from '../../schemas/topics.ts';

export class InventoryTopic {
  /** The newest event of each entity; what ended stands there with its end. */
  readonly newest = new Map<string, InventoryEvent>();
  /** Keys of those that ended, though their event cannot say so (namespaces). */
  readonly ended = new Set<string>();
  /** Watermarks read, in order. */
  readonly watermarks: { readonly completeToMs: number; readonly atMs: number }[] = [];
  /** Events read, watermarks left out. */
  count = 0;
  readonly #bus: Bus;
  #close: () => Promise<void> = async () => {};

  private constructor(bus: Bus) {
    this.#bus = bus;
  }

  static async open(dataDir: string, settings: Partial<BusConfig> = {}): Promise<InventoryTopic> {
    const config = busConfig(settings);
    const log = pino({ level: 'silent' });
    const bus = await openBus(config, { dataDir, log, clientId: 'test' });
    await bus.ensureTopics(topicSpecs(config));
    const topic = new InventoryTopic(bus);
    const tail = await bus.tail({
      topic: topics.inventory,
      onMessages: (_, messages) => {
        for (const message of messages) topic.#take(message);
      },
      onCaughtUp: () => {},
      onError: () => {},
    });
    topic.#close = () => tail.close();
    return topic;
  }

  async close(): Promise<void> {
    await this.#close();
    await this.#bus.close();
  }

  #take({ key, value, headers }: BusMessage): void {
    if (key === null) return;
    if (value === null) {
      this.newest.delete(key);
      return;
    }
    const event: InventoryEvent = JSON.parse(Buffer.from(value).toString());
    if (event.type === 'watermark') {
      this.watermarks.push({ completeToMs: event.completeToMs, atMs: Date.now() });
      return;
    }
    this.count++;
    this.newest.set(key, event);
    if (headers.ended === undefined) this.ended.delete(key);
    else this.ended.add(key);
  }

  /** Workloads of a kind that live. */
  live(kind: WorkloadEvent['kind']): WorkloadEvent[] {
    return [...this.newest.values()].filter(
      (event): event is WorkloadEvent =>
        event.type === 'workload' && event.kind === kind && event.untilMs === undefined,
    );
  }

  /** Names of namespaces that live. */
  namespaces(): Set<string> {
    const names = new Set<string>();
    for (const [key, event] of this.newest) {
      if (event.type === 'namespace' && !this.ended.has(key)) names.add(event.name);
    }
    return names;
  }

  /** The pod of this name that lives, or the one that ended last. */
  pod(namespace: string, name: string): WorkloadEvent | undefined {
    let found: WorkloadEvent | undefined;
    for (const event of this.newest.values()) {
      if (event.type !== 'workload' || event.kind !== 'pod') continue;
      if (event.namespace !== namespace || event.name !== name) continue;
      if (
        found === undefined ||
        (event.untilMs ?? Number.POSITIVE_INFINITY) > (found.untilMs ?? Number.POSITIVE_INFINITY)
      )
        found = event;
    }
    return found;
  }
}

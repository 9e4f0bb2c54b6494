/**
 * Looks workloads up where their Kubernetes labels and annotations are: on the topic `inventory`. The whole topic is read
 * for each question (it is compacted, and few ask), so nothing of it is kept in memory.
 */
import { Compile } from 'typebox/compile';
import type { Bus, BusMessage } from '../../lib/bus/bus.ts';
import { formatAddress, parseAddress } from '../../lib/net/address.ts';
import {
  NamespaceEvent,
  ServiceEvent,
  type ServiceEvent as ServiceEventType,
  WorkloadEvent,
  type WorkloadEvent as WorkloadEventType,
} from '../../schemas/inventory-event.ts';
import { topics } from '../../schemas/topics.ts';

/** What labels are given to. */
export type LabelledEvent = WorkloadEventType | ServiceEventType;

export interface FoundWorkload {
  readonly event: LabelledEvent;
  readonly namespaceLabels: Readonly<Record<string, string>>;
  /** Whether it is there now and (where an address was asked for) has the address now. */
  readonly current: boolean;
}

export interface Found {
  /** The present ones first, then by the newest begin. */
  readonly workloads: readonly FoundWorkload[];
  /** Whether there are more than were kept. */
  readonly truncated: boolean;
}

/** Workloads that one question keeps at most. */
export const maxFound = 1000;

const workloadEvent = Compile(WorkloadEvent);
const serviceEvent = Compile(ServiceEvent);
const namespaceEvent = Compile(NamespaceEvent);

/** What a word may mean: a uid, an address, a name, namespace/name or cluster/namespace/name. */
export interface Question {
  readonly word: string;
  /** Text that every event it may mean has in it. */
  readonly needle: string;
  readonly address: string | null;
}

export function toQuestion(word: string): Question {
  const bytes = parseAddress(word);
  if (bytes !== null) {
    const address = formatAddress(bytes);
    return { word, needle: JSON.stringify(address), address };
  }
  const name = word.slice(word.lastIndexOf('/') + 1);
  return { word, needle: JSON.stringify(name), address: null };
}

function isMeant(event: LabelledEvent, { word, address }: Question): boolean {
  if (address !== null) return event.addresses.some(({ ip }) => ip === address);
  const { uid, name, namespace, cluster } = event;
  // The uid of a hand-written manifest has a slash of its own.
  return [uid, name, `${namespace}/${name}`, `${cluster}/${namespace}/${name}`].includes(word);
}

function isCurrent(event: LabelledEvent, { address }: Question): boolean {
  if (event.untilMs !== undefined) return false;
  return (
    address === null ||
    event.addresses.some((interval) => interval.ip === address && interval.untilMs === undefined)
  );
}

/** JSON of a message; undefined where it is none. */
export function parsed(value: Uint8Array): unknown {
  try {
    return JSON.parse(Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString('utf8'));
  } catch {
    return undefined;
  }
}

/** Applies messages, newest per key, and keeps those that the question means. */
class Search {
  readonly #question: Question;
  readonly #needle: Buffer;
  readonly #found = new Map<string, LabelledEvent>();
  readonly #namespaces = new Map<string, Uint8Array>();
  #truncated = false;

  constructor(question: Question) {
    this.#question = question;
    this.#needle = Buffer.from(question.needle);
  }

  apply({ key, value }: BusMessage): void {
    if (key === null) return;
    if (key.startsWith('namespace/')) {
      if (value === null) this.#namespaces.delete(key);
      else this.#namespaces.set(key, value);
    } else if (key.startsWith('workload/') || key.startsWith('service/')) this.#owner(key, value);
  }

  #owner(key: string, value: Uint8Array | null): void {
    this.#found.delete(key);
    if (value === null) return;
    // Nearly every message lacks the text, which costs far less to see than parsing it.
    if (!Buffer.from(value.buffer, value.byteOffset, value.byteLength).includes(this.#needle)) return;
    const event = parsed(value);
    if (!workloadEvent.Check(event) && !serviceEvent.Check(event)) return;
    if (!isMeant(event, this.#question)) return;
    if (this.#found.size >= maxFound) this.#truncated = true;
    else this.#found.set(key, event);
  }

  #labelsOf({ cluster, namespace }: LabelledEvent): Readonly<Record<string, string>> {
    const value = this.#namespaces.get(`namespace/${cluster}/${namespace}`);
    const event = value === undefined ? undefined : parsed(value);
    return namespaceEvent.Check(event) ? event.labels : {};
  }

  result(): Found {
    const workloads = [...this.#found.values()].map((event) => ({
      event,
      namespaceLabels: this.#labelsOf(event),
      current: isCurrent(event, this.#question),
    }));
    workloads.sort((a, b) => Number(b.current) - Number(a.current) || b.event.sinceMs - a.event.sinceMs);
    return { workloads, truncated: this.#truncated };
  }
}

/**
 * Reads the topic as far as it goes now; a promise of `take` is waited for. Rejects when `take` throws, and when `signal` is
 * aborted, with its reason.
 */
export async function readInventory(
  bus: Bus,
  signal: AbortSignal,
  take: (messages: readonly BusMessage[]) => void | Promise<void>,
): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const stop = (): void => reject(signal.reason);
  signal.throwIfAborted();
  signal.addEventListener('abort', stop, { once: true });
  const tail = await bus.tail({
    topic: topics.inventory,
    onMessages: async (_partition, messages) => {
      try {
        await take(messages);
      } catch (error) {
        reject(error);
        throw error;
      }
    },
    onCaughtUp: resolve,
    // The bus goes on trying; how long is the signal's to say.
    onError: () => undefined,
  });
  try {
    await promise;
  } finally {
    signal.removeEventListener('abort', stop);
    await tail.close();
  }
}

/** Looks through the topic as far as it goes now. Rejects when `signal` is aborted, with its reason. */
export async function findWorkloads(bus: Bus, question: Question, signal: AbortSignal): Promise<Found> {
  const search = new Search(question);
  await readInventory(bus, signal, (messages) => {
    for (const message of messages) search.apply(message);
  });
  return search.result();
}

/**
 * The one that is meant: the only one, the only present one, or the newest of several with one name in one place (a pod
 * that was created anew). Null where it is not clear.
 */
export function theOneMeant({ workloads }: Found): FoundWorkload | null {
  const present = workloads.filter(({ current }) => current);
  const [first, ...rest] = present.length > 0 ? present : workloads;
  if (first === undefined) return null;
  const place = ({ event }: FoundWorkload): string =>
    [event.type, event.cluster, event.namespace, event.name].join('\n');
  return rest.every((other) => place(other) === place(first)) ? first : null;
}

/** Changes a cluster at random and remembers who had which address and label when, to judge an inventory by it. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { AddressInterval, InventoryEvent, WorkloadEvent } from '../../lib/inventory/events.ts';
import { inParallel, type KubeClient, KubeError, type KubeObject } from './kube-client.ts';

/** Changes on their way at once. */
const workerCount = 4;
const retryDelayMs = 100;

/** Something that was so from after the answer to the change that made it, until before the next change was asked for. */
interface Fact {
  readonly uid: string;
  readonly fromMs: number;
  toMs: number;
}

interface Pod {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  ip: string;
  address: Fact & { readonly ip: string };
  label: Fact & { readonly version: string };
}

export interface Judgement {
  /** What the inventory says for certain that was otherwise. */
  readonly wrong: readonly string[];
  /** Checks at the begin, in the middle and at the end of what was so. */
  readonly checkCount: number;
  /** Share of them in which the inventory names the owner alone. */
  readonly exactShare: number;
}

export class Churn {
  readonly #client: KubeClient;
  readonly #namespaces: readonly string[];
  readonly #pods: Pod[] = [];
  /** Addresses that were given back, to be given to others soon. */
  readonly #free: string[] = [];
  readonly #addresses: (Fact & { readonly ip: string })[] = [];
  readonly #labels: (Fact & { readonly version: string })[] = [];
  #nextAddress = 0;
  #nextName = 0;
  #version = 0;
  #stepCount = 0;
  #isStopped = false;
  #isAborted = false;
  #workers: Promise<unknown> = Promise.resolve();

  constructor(client: KubeClient, namespaces: readonly string[]) {
    this.#client = client;
    this.#namespaces = namespaces;
  }

  get stepCount(): number {
    return this.#stepCount;
  }

  /** Creates this many pods. */
  async fill(count: number): Promise<void> {
    await inParallel(Array.from({ length: count }), () => this.#create());
  }

  start(): void {
    this.#workers = Promise.all(Array.from({ length: workerCount }, () => this.#work()));
  }

  /** Resolves when this many changes more were made. */
  async steps(count: number): Promise<void> {
    const goal = this.#stepCount + count;
    while (this.#stepCount < goal) await Promise.race([sleep(20), this.#workers.then(() => sleep(20))]);
  }

  /** Ends when the changes that are under way are made. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    await this.#workers;
  }

  /** Ends, whatever is under way. */
  abort(): void {
    this.#isStopped = true;
    this.#isAborted = true;
    this.#workers.catch(() => undefined);
  }

  async #work(): Promise<void> {
    while (!this.#isStopped) {
      const dice = Math.random();
      // Taken out of the list, so that no two changes of one pod meet.
      const [pod] = this.#pods.splice(Math.floor(Math.random() * this.#pods.length), 1);
      if (pod === undefined) throw new Error('no pod is left');
      if (dice < 0.4) {
        await this.#delete(pod);
        await this.#create();
      } else {
        if (dice < 0.7) await this.#readdress(pod);
        else await this.#relabel(pod);
        this.#pods.push(pod);
      }
      this.#stepCount++;
    }
  }

  /** Until the server takes it; one that is away is waited for. `onRefused` for an answer that says no. */
  async #insist<T>(
    work: () => Promise<T>,
    onRefused: (error: KubeError) => T | null = () => null,
  ): Promise<T> {
    for (;;) {
      try {
        return await work();
      } catch (error) {
        if (this.#isAborted) throw error;
        const answer = error instanceof KubeError ? onRefused(error) : null;
        if (answer !== null) return answer;
        if (error instanceof KubeError && ![409, 429, 500, 503, 504].includes(error.status)) throw error;
        await sleep(retryDelayMs);
      }
    }
  }

  #takeAddress(): string {
    const reused = this.#free.shift();
    if (reused !== undefined) return reused;
    const i = this.#nextAddress++;
    return `10.1.${i >> 8}.${i & 255}`;
  }

  #noteAddress(uid: string, ip: string): Fact & { readonly ip: string } {
    const fact = { uid, ip, fromMs: Date.now(), toMs: Number.POSITIVE_INFINITY };
    this.#addresses.push(fact);
    return fact;
  }

  #noteLabel(uid: string, version: string): Fact & { readonly version: string } {
    const fact = { uid, version, fromMs: Date.now(), toMs: Number.POSITIVE_INFINITY };
    this.#labels.push(fact);
    return fact;
  }

  async #create(): Promise<void> {
    const i = this.#nextName++;
    const namespace = this.#namespaces[i % this.#namespaces.length] ?? 'default';
    const name = `pod-${i}`;
    const version = String(++this.#version);
    const path = `/api/v1/namespaces/${namespace}/pods/${name}`;
    const lost: KubeObject = { metadata: { name } };
    const created = await this.#insist(
      () => this.#client.createPod(namespace, name, { labels: { app: 'churn', version } }),
      // The first try got through, and its answer was lost.
      ({ status }) => (status === 409 ? lost : null),
    );
    const get = async (): Promise<KubeObject> => (await this.#client.request('GET', path)) as KubeObject;
    const { uid = '' } = (created === lost ? await this.#insist(get) : created).metadata;
    const label = this.#noteLabel(uid, version);
    const ip = this.#takeAddress();
    await this.#insist(() => this.#client.readdressPod(namespace, name, ip));
    this.#pods.push({ namespace, name, uid, ip, label, address: this.#noteAddress(uid, ip) });
  }

  async #delete(pod: Pod): Promise<void> {
    pod.address.toMs = Date.now();
    pod.label.toMs = Date.now();
    await this.#insist(
      () => this.#client.deletePod(pod.namespace, pod.name),
      ({ status }) => (status === 404 ? undefined : null) as undefined,
    );
    this.#free.push(pod.ip);
  }

  async #readdress(pod: Pod): Promise<void> {
    const { namespace, name, uid, ip: former } = pod;
    const ip = this.#takeAddress();
    pod.address.toMs = Date.now();
    await this.#insist(() => this.#client.readdressPod(namespace, name, ip));
    pod.ip = ip;
    pod.address = this.#noteAddress(uid, ip);
    this.#free.push(former);
  }

  async #relabel(pod: Pod): Promise<void> {
    const { namespace, name, uid } = pod;
    const version = String(++this.#version);
    pod.label.toMs = Date.now();
    await this.#insist(() => this.#client.relabelPod(namespace, name, { app: 'churn', version }));
    pod.label = this.#noteLabel(uid, version);
  }

  /**
   * Holds what an inventory says to what was so: at the begin, in the middle and at the end of everything, and wherever the
   * inventory says that somebody's possession of the address begins or ends.
   */
  judge(events: readonly InventoryEvent[]): Judgement {
    const pods = events.filter(
      (event): event is WorkloadEvent => event.type === 'workload' && event.kind === 'pod',
    );
    const byUid = new Map(pods.map((event) => [event.uid, event]));
    const owners = new Map<string, { readonly uid: string; readonly interval: AddressInterval }[]>();
    for (const { uid, addresses } of pods) {
      for (const interval of addresses)
        owners.set(interval.ip, [...(owners.get(interval.ip) ?? []), { uid, interval }]);
    }
    const wrong: string[] = [];
    let checkCount = 0;
    let exactCount = 0;
    for (const { uid, ip, fromMs, toMs } of this.#addresses) {
      const samples = momentsOf(fromMs, toMs);
      const edges = (owners.get(ip) ?? []).flatMap(({ interval }) => edgesOf(interval));
      const inside = edges.filter((atMs) => atMs > fromMs && atMs < Math.min(toMs, Date.now()));
      checkCount += samples.length;
      for (const [i, atMs] of [...samples, ...inside].entries()) {
        const found = (owners.get(ip) ?? []).filter(({ interval }) => contains(interval, atMs));
        const [one] = found;
        if (found.length !== 1 || one === undefined) continue;
        if (one.uid === uid) exactCount += i < samples.length ? 1 : 0;
        else if (isSure(one.interval, atMs)) {
          const told = JSON.stringify(owners.get(ip));
          wrong.push(`${ip} at ${atMs}: ${one.uid}, was ${uid} (${fromMs} to ${toMs}); ${told}`);
        }
      }
    }
    for (const { uid, version, fromMs, toMs } of this.#labels) {
      for (const atMs of momentsOf(fromMs, toMs)) {
        const event = byUid.get(uid);
        checkCount++;
        // Which labels a flow gets is asked only where it is known whose it is.
        if (event === undefined || !event.addresses.some((interval) => isSure(interval, atMs))) continue;
        const former = event?.former?.find(({ untilMs }) => untilMs > atMs);
        const { labels } = former ?? event;
        if (labels.version === version) exactCount++;
        else if (atMs < (former?.knownToMs ?? Number.POSITIVE_INFINITY)) {
          wrong.push(`${uid} at ${atMs}: version ${labels.version}, was ${version} (${fromMs} to ${toMs})`);
        }
      }
    }
    return { wrong, checkCount, exactShare: exactCount / checkCount };
  }
}

function contains({ sinceMs, untilMs }: AddressInterval, atMs: number): boolean {
  return sinceMs <= atMs && atMs < (untilMs ?? Number.POSITIVE_INFINITY);
}

function isSure(interval: AddressInterval, atMs: number): boolean {
  return contains(interval, atMs) && atMs >= (interval.certainFromMs ?? 0);
}

/** Where an interval begins to say something else, and the moment before each. */
function edgesOf({ sinceMs, certainFromMs = sinceMs, untilMs = sinceMs }: AddressInterval): number[] {
  return [sinceMs, certainFromMs, untilMs].flatMap((edgeMs) => [edgeMs - 1, edgeMs]);
}

function momentsOf(fromMs: number, toMs: number): number[] {
  const first = fromMs + 1;
  const last = Math.min(toMs, Date.now()) - 1;
  return first > last ? [] : [...new Set([first, Math.floor((first + last) / 2), last])];
}

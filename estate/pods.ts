/**
 * Pods in time. A slot is a place in a deployment that one pod after another fills; a place is a pod address (and with it a
 * node). Churn takes two slots of different deployments in one cluster, ends both pods, and gives each successor the
 * other's address: so each freed address belongs to somebody else within the reuse delay.
 */
import { quantumMs } from './config.ts';
import { type Endpoint, ipv4, ipv4Bytes, ipv4Text, workloadIdentity } from './ends.ts';
import { mix32, Random } from './random.ts';
import type { PodRelabel, Relabels } from './relabel.ts';
import { makeUid } from './uids.ts';
import type { Cluster, Deployment, World } from './world.ts';

/** One life of a pod. */
export interface Pod {
  readonly slot: number;
  readonly generation: number;
  readonly place: number;
  readonly sinceMs: number;
  readonly untilMs: number;
}

export interface PodChange {
  readonly timeMs: number;
  readonly pod: Pod;
}

/** What an earlier run left in a slot. */
export interface AdoptedPod {
  readonly slot: number;
  /** Highest generation that was there. */
  readonly generation: number;
  /** The pod that still lives, if one does: its address and begin. */
  readonly alive: { readonly address: string; readonly sinceMs: number } | null;
}

export interface ChurnOptions {
  readonly churnPerMinute: number;
  readonly reuseDelayMs: number;
  /** Ends are decided at least this long ahead, ms. */
  readonly horizonMs: number;
}

interface Birth {
  readonly timeMs: number;
  readonly slot: number;
  readonly place: number;
  readonly previousUntilMs: number;
}

const forever = Number.POSITIVE_INFINITY;

export class Pods {
  readonly world: World;
  readonly #random: Random;
  readonly #churn: ChurnOptions;
  readonly #deployments: readonly Deployment[];
  readonly #place: Int32Array;
  readonly #generation: Uint32Array;
  readonly #sinceMs: Float64Array;
  readonly #untilMs: Float64Array;
  readonly #alive: Uint8Array;
  readonly #endpoints: (Endpoint | undefined)[];
  readonly #relabels: Relabels;
  /** How the labels of the pod in a slot were changed, oldest first. */
  readonly #changes: (PodRelabel[] | undefined)[];
  readonly #clusterOfPlace: (place: number) => Cluster;
  /** Deaths and births to come, unordered; few. */
  #deaths: PodChange[] = [];
  #births: Birth[] = [];
  #plannedToMs = 0;
  #owed = 0;

  /** @param bornMs begin of the first pods @param adopted what an earlier run left, which goes on at `startMs` */
  constructor(
    world: World,
    relabels: Relabels,
    churn: ChurnOptions,
    bornMs: number,
    startMs: number,
    adopted: readonly AdoptedPod[],
  ) {
    this.world = world;
    this.#relabels = relabels;
    this.#churn = churn;
    this.#random = new Random(world.seed, `churn/${adopted.length === 0 ? '' : startMs}`);
    this.#deployments = world.deployments;
    const count = world.slotCount;
    this.#place = Int32Array.from({ length: count }, (_, slot) => slot);
    this.#generation = new Uint32Array(count);
    // Begins differ by up to 90 days and do not depend on when the run starts.
    this.#sinceMs = Float64Array.from(
      { length: count },
      (_, slot) => bornMs + Math.floor(mix32(slot + 1) * 1.8),
    );
    this.#untilMs = new Float64Array(count).fill(forever);
    this.#alive = new Uint8Array(count).fill(1);
    this.#endpoints = new Array<Endpoint | undefined>(count);
    this.#changes = new Array<PodRelabel[] | undefined>(count);
    this.#clusterOfPlace = (place) => {
      for (const cluster of world.clusters) if (place < cluster.firstSlot + cluster.slotCount) return cluster;
      throw new RangeError(`no place ${place}`);
    };
    if (adopted.length > 0) this.#adopt(adopted, startMs);
  }

  /** Address and node of a place: nodes take turns, so that the pods of a deployment are spread. */
  addressOf(place: number): number {
    const cluster = this.#clusterOfPlace(place);
    const index = place - cluster.firstSlot;
    return ipv4(10, 244, index % cluster.nodeCount, 2 + Math.floor(index / cluster.nodeCount));
  }

  /** The node (within its cluster) that a place is on. */
  nodeOf(place: number): number {
    const cluster = this.#clusterOfPlace(place);
    return (place - cluster.firstSlot) % cluster.nodeCount;
  }

  placeOf(slot: number): number {
    return this.#place[slot] ?? 0;
  }

  #placeOfAddress(cluster: Cluster, text: string): number {
    const parts = text.split('.').map(Number);
    const [, , node = -1, host = 0] = parts;
    const index = (host - 2) * cluster.nodeCount + node;
    const fits = node >= 0 && node < cluster.nodeCount && host >= 2 && index < cluster.slotCount;
    return fits ? cluster.firstSlot + index : -1;
  }

  /** Slots whose pod of an earlier run lives go on with it; the others begin anew at addresses that nobody has. */
  #adopt(adopted: readonly AdoptedPod[], startMs: number): void {
    const taken = new Uint8Array(this.#place.length);
    const settled = new Uint8Array(this.#place.length);
    for (const { slot, generation, alive } of adopted) {
      if (slot >= this.#place.length) continue;
      this.#generation[slot] = generation;
      if (alive === null) continue;
      const place = this.#placeOfAddress(this.deploymentOf(slot).namespace.cluster, alive.address);
      if (place < 0 || taken[place] === 1) continue;
      taken[place] = 1;
      settled[slot] = 1;
      this.#place[slot] = place;
      this.#sinceMs[slot] = alive.sinceMs;
    }
    const known = new Set(adopted.map(({ slot }) => slot));
    for (const cluster of this.world.clusters) {
      let free = cluster.firstSlot;
      for (let slot = cluster.firstSlot; slot < cluster.firstSlot + cluster.slotCount; slot++) {
        if (settled[slot] === 1) continue;
        while (taken[free] === 1) free++;
        taken[free] = 1;
        this.#place[slot] = free;
        // Whoever was never published is still the first pod of its slot, unless its address has moved on.
        if (!known.has(slot) && free === slot) continue;
        this.#generation[slot] = (this.#generation[slot] ?? 0) + 1;
        this.#sinceMs[slot] = startMs;
      }
    }
  }

  deploymentOf(slot: number): Deployment {
    const deployment = this.#deployments[this.world.deploymentOfSlot[slot] ?? 0];
    if (deployment === undefined) throw new RangeError(`no slot ${slot}`);
    return deployment;
  }

  /** The pod in a slot; of a slot that waits for its next pod, the one that was. */
  pod(slot: number): Pod {
    return {
      slot,
      generation: this.#generation[slot] ?? 0,
      place: this.#place[slot] ?? 0,
      sinceMs: this.#sinceMs[slot] ?? 0,
      untilMs: this.#alive[slot] === 1 ? forever : (this.#untilMs[slot] ?? forever),
    };
  }

  isAlive(slot: number): boolean {
    return this.#alive[slot] === 1;
  }

  changesOf(slot: number): readonly PodRelabel[] {
    return this.#changes[slot] ?? [];
  }

  /** Changes the labels of a slot's living pod; false where none lives. */
  relabel(slot: number, to: PodRelabel): boolean {
    if (this.#alive[slot] !== 1) return false;
    const { untilMs } = this.endpoint(slot);
    if (untilMs <= to.sinceMs) return false;
    this.#changes[slot]?.push(to);
    return true;
  }

  uidOf(pod: Pick<Pod, 'slot' | 'generation'>): string {
    return makeUid('pod', this.world.tag, pod.generation, pod.slot);
  }

  /** The end that a slot's living pod is. */
  endpoint(slot: number): Endpoint {
    return this.#endpoints[slot] ?? this.#makeEndpoint(slot, Number.NEGATIVE_INFINITY);
  }

  #makeEndpoint(slot: number, previousUntilMs: number): Endpoint {
    const place = this.#place[slot] ?? 0;
    const deployment = this.deploymentOf(slot);
    const { namespace, labels } = deployment;
    const changes: PodRelabel[] = [];
    this.#changes[slot] = changes;
    const address = this.addressOf(place);
    const uid = this.uidOf({ slot, generation: this.#generation[slot] ?? 0 });
    const cluster = namespace.cluster;
    const endpoint: Endpoint = {
      address: ipv4Bytes(address),
      text: ipv4Text(address),
      number: place,
      agent: cluster.firstNode + this.nodeOf(place),
      slot,
      uid,
      previousUntilMs,
      nextSinceMs: forever,
      untilMs: this.#untilMs[slot] ?? forever,
      identify: () =>
        workloadIdentity({ cluster: cluster.name, kind: 'pod', uid, namespace: namespace.name }, labels),
      identity: null,
      labelsAt: this.#relabels.labelsAt(deployment, changes),
      relabelled: null,
    };
    this.#endpoints[slot] = endpoint;
    return endpoint;
  }

  /** A living pod of the deployment, or -1 while none lives. */
  pick(deployment: Deployment, random: Random): number {
    const { firstSlot, slotCount } = deployment;
    const offset = random.below(slotCount);
    for (let i = 0; i < slotCount; i++) {
      const slot = firstSlot + ((offset + i) % slotCount);
      if (this.#alive[slot] === 1) return slot;
    }
    return -1;
  }

  /** Begins churn: from `fromMs` on, ends are planned. */
  startChurn(fromMs: number): void {
    this.#plannedToMs = fromMs;
    while (this.#plannedToMs < fromMs + this.#churn.horizonMs) this.#plan();
  }

  /**
   * Decides the ends of the next quantum beyond the horizon, and takes out what happens in `[fromMs, fromMs + quantum)`.
   * The changes come in time order; they take effect with {@link apply}.
   */
  due(fromMs: number): (PodChange | Birth)[] {
    if (this.#plannedToMs === 0) return [];
    while (this.#plannedToMs < fromMs + quantumMs + this.#churn.horizonMs) this.#plan();
    const toMs = fromMs + quantumMs;
    const due: (PodChange | Birth)[] = [
      ...this.#deaths.filter((death) => death.timeMs < toMs),
      ...this.#births.filter((birth) => birth.timeMs < toMs),
    ];
    this.#deaths = this.#deaths.filter((death) => death.timeMs >= toMs);
    this.#births = this.#births.filter((birth) => birth.timeMs >= toMs);
    return due.sort((a, b) => a.timeMs - b.timeMs);
  }

  /** Carries out a change; returns the pod as it is from then on. */
  apply(change: PodChange | Birth): PodChange {
    if ('pod' in change) {
      this.#alive[change.pod.slot] = 0;
      return change;
    }
    const { slot, place, timeMs } = change;
    this.#place[slot] = place;
    this.#generation[slot] = (this.#generation[slot] ?? 0) + 1;
    this.#sinceMs[slot] = timeMs;
    this.#untilMs[slot] = forever;
    this.#alive[slot] = 1;
    this.#makeEndpoint(slot, change.previousUntilMs);
    return { timeMs, pod: this.pod(slot) };
  }

  #plan(): void {
    const fromMs = this.#plannedToMs;
    this.#plannedToMs += quantumMs;
    // Each planned pair replaces two pods.
    this.#owed += (this.world.slotCount * this.#churn.churnPerMinute * quantumMs) / 60_000 / 2;
    while (this.#owed >= 1) {
      this.#owed--;
      this.#planPair(fromMs);
    }
  }

  #candidate(cluster: Cluster, except: Deployment | null): number {
    for (let attempt = 0; attempt < 20; attempt++) {
      const slot = cluster.firstSlot + this.#random.below(cluster.slotCount);
      const free = this.#alive[slot] === 1 && this.#untilMs[slot] === forever;
      if (free && this.deploymentOf(slot) !== except) return slot;
    }
    return -1;
  }

  #planPair(fromMs: number): void {
    const cluster = this.#clusterOfPlace(this.#random.below(this.world.slotCount));
    const a = this.#candidate(cluster, null);
    if (a < 0) return;
    const b = this.#candidate(cluster, this.deploymentOf(a));
    if (b < 0) return;
    const delayMs = this.#churn.reuseDelayMs;
    const endA = fromMs + this.#random.below(quantumMs);
    const endB = endA + this.#random.below(Math.ceil(delayMs / 2));
    const pause = (): number => Math.max(1, Math.round(delayMs * (0.1 + 0.9 * this.#random.next())));
    const beginA = endB + pause();
    // A successor starts no sooner than its predecessor has ended.
    const beginB = Math.max(endA + pause(), endB + 1);
    this.#end(a, endA, beginB);
    this.#end(b, endB, beginA);
    this.#births.push(
      { timeMs: beginA, slot: a, place: this.placeOf(b), previousUntilMs: endB },
      { timeMs: beginB, slot: b, place: this.placeOf(a), previousUntilMs: endA },
    );
  }

  #end(slot: number, untilMs: number, nextSinceMs: number): void {
    const endpoint = this.endpoint(slot);
    this.#untilMs[slot] = untilMs;
    endpoint.untilMs = untilMs;
    endpoint.nextSinceMs = nextSinceMs;
    this.#deaths.push({ timeMs: untilMs, pod: { ...this.pod(slot), untilMs } });
  }
}

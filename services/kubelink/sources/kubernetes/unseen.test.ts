/** Holds what is told of a cluster, with times that nobody saw, to what really was: nobody else is ever named for certain. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { Inventory } from '../../../../lib/inventory/inventory.ts';
import { certaintyCode } from '../../../../lib/inventory/time-index.ts';
import { parseAddress } from '../../../../lib/net/address.ts';
import { carryRules } from '../../manifests/common.ts';
import { InventoryState, type Publication } from '../../state.ts';
import { ClusterView } from './cluster-view.ts';
import { type Converted, converted } from './converted.ts';
import { headOf } from './resources.ts';

const startMs = Date.parse('2026-03-01T10:00:00.400Z');
/** An address is in use for so long at most before the server knows of it. */
const statusLagMs = 1_000;
const carry = carryRules([], []);
const source = 'kubernetes:east';
const secondOf = (timeMs: number): string => new Date(timeMs).toISOString().replace(/\.\d+Z$/, 'Z');

type Labels = Readonly<Record<string, string>>;

interface Pod {
  readonly uid: string;
  readonly createdMs: number;
  ip: string | null;
  labels: Labels;
  /** Notes of writes: of the object, and of its status. */
  writtenMs: number;
  statusMs: number;
}

/** Something that was so from `fromMs` until before `toMs`. */
interface Fact<T> {
  readonly uid: string;
  readonly value: T;
  readonly fromMs: number;
  toMs: number;
}

interface Write {
  readonly atMs: number;
  readonly object: Record<string, unknown>;
  readonly isGone: boolean;
}

/** A cluster with its pods, as its API server shows them. */
class Cluster {
  nowMs = startMs;
  readonly pods: Pod[] = [];
  readonly addresses: Fact<string>[] = [];
  readonly labels: Fact<Labels>[] = [];
  readonly #onWrite: (write: Write) => void;
  #count = 0;
  #version = 0;

  constructor(onWrite: (write: Write) => void) {
    this.#onWrite = onWrite;
  }

  create(labels: Labels): Pod {
    const pod = {
      uid: `p${++this.#count}`,
      createdMs: this.nowMs,
      ip: null,
      labels,
      writtenMs: this.nowMs,
      statusMs: 0,
    };
    this.pods.push(pod);
    this.#begin(this.labels, pod, labels);
    this.#write(pod);
    return pod;
  }

  /** Gives it an address, or another one; the server knows of it `lagMs` later. */
  address(pod: Pod, ip: string, lagMs: number): void {
    this.#endAddress(pod);
    pod.ip = ip;
    this.#begin(this.addresses, pod, ip);
    this.nowMs += lagMs;
    pod.statusMs = this.nowMs;
    this.#write(pod);
  }

  label(pod: Pod, labels: Labels): void {
    // The server keeps no note of what is only taken away.
    const isNoted = Object.entries(labels).some(([key, value]) => pod.labels[key] !== value);
    if (isNoted) pod.writtenMs = this.nowMs;
    this.#end(this.labels, pod);
    pod.labels = labels;
    this.#begin(this.labels, pod, labels);
    this.#write(pod);
  }

  delete(pod: Pod, lagMs: number): void {
    this.#endAddress(pod);
    this.nowMs += lagMs;
    this.#end(this.labels, pod);
    this.pods.splice(this.pods.indexOf(pod), 1);
    this.#write(pod, true);
  }

  list(): Record<string, unknown>[] {
    return this.pods.map((pod) => this.#object(pod));
  }

  #begin<T>(facts: Fact<T>[], { uid }: Pod, value: T): void {
    facts.push({ uid, value, fromMs: this.nowMs, toMs: Number.POSITIVE_INFINITY });
  }

  #end<T>(facts: Fact<T>[], { uid }: Pod): void {
    const last = facts.findLast((fact) => fact.uid === uid);
    if (last !== undefined) last.toMs = this.nowMs;
  }

  #endAddress(pod: Pod): void {
    if (pod.ip !== null) this.#end(this.addresses, pod);
  }

  #write(pod: Pod, isGone = false): void {
    this.#version++;
    this.#onWrite({ atMs: this.nowMs, object: this.#object(pod), isGone });
  }

  #object({ uid, createdMs, ip, labels, writtenMs, statusMs }: Pod): Record<string, unknown> {
    const status = { subresource: 'status', time: secondOf(statusMs) };
    return {
      metadata: {
        name: uid,
        namespace: 'shop',
        uid,
        labels,
        resourceVersion: String(this.#version),
        creationTimestamp: secondOf(createdMs),
        managedFields: [{ time: secondOf(writtenMs) }, ...(statusMs === 0 ? [] : [status])],
      },
      status: {
        phase: 'Running',
        startTime: secondOf(createdMs),
        ...(ip === null ? {} : { podIPs: [{ ip }] }),
      },
    };
  }
}

/** Kubelink and the topic, as `KubernetesSource` joins them: what is told, what is vouched for, what outlives a crash. */
class Told {
  readonly cluster: Cluster;
  #view = freshView();
  #state = freshState();
  /** Written, and not heard yet; while nobody watches it is not kept. */
  #unheard: Write[] = [];
  #isWatching = false;
  #isTelling = false;
  #toldSinceMs = 0;
  #vouchedMs = 0;
  #readMs = 0;
  #restoredMs = 0;
  /** Of each entity what was told since the last watermark, oldest first; before that, what the topic has for sure. */
  readonly #topic = new Map<string, Publication[]>();

  constructor() {
    this.cluster = new Cluster((write) => {
      if (this.#isWatching) this.#unheard.push(write);
    });
    this.begin();
    this.mark();
  }

  /** Reads all there is, and goes on from there. */
  begin(): void {
    const { nowMs } = this.cluster;
    this.#unheard = [];
    this.#isWatching = true;
    this.#view.replace(
      'Pod',
      this.cluster.list().map((object) => read(object, nowMs)),
    );
    this.#readMs = nowMs - statusLagMs;
    const seenToMs = Math.max(this.#isTelling ? this.#vouchedMs : 0, this.#restoredMs);
    this.#isTelling = true;
    this.#toldSinceMs = nowMs;
    const time = { nowMs, seenToMs };
    this.#publish(
      this.#state.snapshot(source, this.#view.all(), nowMs, seenToMs, (event) =>
        this.#view.changedMs(event, time),
      ),
    );
  }

  hear(count: number): void {
    const { nowMs } = this.cluster;
    const seenToMs = Math.max(this.#vouchedMs, this.#readMs);
    for (const { object, isGone } of this.#unheard.splice(0, count)) {
      const hearing = { nowMs, seenToMs, toldSinceMs: this.#toldSinceMs };
      for (const news of this.#view.apply('Pod', read(object, nowMs), isGone, hearing)) {
        if (news.type === 'gone') this.#publish(this.#state.gone(source, news.key, news.atMs));
        else this.#publish(this.#state.change(source, news.event, nowMs, news.atMs, seenToMs));
      }
    }
  }

  /** Proves that all was heard that was written before what was not. */
  vouch(): void {
    if (!this.#isWatching) return;
    const heardToMs = Math.min(this.cluster.nowMs, (this.#unheard[0]?.atMs ?? Number.POSITIVE_INFINITY) - 1);
    this.#vouchedMs = Math.max(this.#vouchedMs, heardToMs - statusLagMs);
  }

  /** A watermark: the topic has all that was told until now. */
  mark(): void {
    for (const [key, told] of this.#topic) this.#topic.set(key, told.slice(-1));
    this.#restoredMs = Math.max(this.#restoredMs, this.#vouchedMs);
  }

  /** The watch ends. */
  lose(): void {
    this.#isWatching = false;
    this.#unheard = [];
  }

  /** Kubelink ends at once: of what was told since the last watermark the topic has any part. */
  crash(kept: (count: number) => number): void {
    this.lose();
    this.#view = freshView();
    this.#state = freshState();
    this.#isTelling = false;
    this.#vouchedMs = 0;
    for (const [key, told] of this.#topic) {
      // What was told for the first time since then may be missing altogether: an empty place stands before it.
      const left = told.slice(0, 1 + kept(told.length));
      this.#topic.set(key, left.slice(-1));
      const last = left.at(-1);
      if (last !== undefined && last.source !== '') this.#state.restore(last);
    }
  }

  inventory(): Inventory {
    const inventory = new Inventory({
      maxIntervalsPerAddress: 1_000,
      reuseAfterMs: 0,
      labelsOf: ({ labels }) => ({ labels }),
    });
    for (const { key, event } of this.#state.entities()) inventory.apply(key, event, source);
    return inventory;
  }

  #publish(publications: readonly Publication[]): void {
    for (const publication of publications) {
      const nothing: Publication = { key: publication.key, event: null, source: '', endedMs: null };
      this.#topic.set(publication.key, [...(this.#topic.get(publication.key) ?? [nothing]), publication]);
    }
  }
}

function freshView(): ClusterView {
  const view = new ClusterView({ cluster: 'east', podCidrs: ['10.1.0.0/16'], serviceCidrs: [] });
  view.reset('uid-of-kube-system');
  return view;
}

function freshState(): InventoryState {
  return new InventoryState({ activeSources: new Set([source]), endedRetentionMs: 3_600_000 });
}

function read(object: Record<string, unknown>, nowMs: number): Converted {
  return converted('Pod', headOf(object), object, { cluster: 'east', carry, nowMs });
}

interface Answer {
  /** Who is named for certain; `null`: nobody. */
  readonly uid: string | null;
  /** The labels that are named for certain. */
  readonly labels: Labels | null;
}

function ask(inventory: Inventory, ip: string, atMs: number): Answer {
  const words = new Uint32Array(Uint8Array.from(parseAddress(ip) ?? []).buffer);
  const { index } = inventory;
  index.find(inventory.network('east'), words, 0, atMs, 0);
  if (index.foundCertainty !== certaintyCode.exact) return { uid: null, labels: null };
  const identity = inventory.identityWithin(index.foundOwner, atMs, atMs);
  return {
    uid: inventory.owners[index.foundOwner]?.uid ?? null,
    labels: identity < 0 ? null : (inventory.identities.list[identity]?.labels ?? null),
  };
}

/** Asks about every fact at each moment at which anything was different, just before and just after. */
function judge(told: Told): { wrong: string[]; askedCount: number; exactCount: number } {
  const { addresses, labels, nowMs } = told.cluster;
  const inventory = told.inventory();
  const edges = new Set([...addresses, ...labels].flatMap(({ fromMs, toMs }) => [fromMs, toMs]));
  const moments = [...edges].flatMap((edge) => [edge - 1, edge, edge + 1]).filter((atMs) => atMs <= nowMs);
  const wrong: string[] = [];
  let askedCount = 0;
  let exactCount = 0;
  for (const { uid, value: ip, fromMs, toMs } of addresses) {
    for (const atMs of moments) {
      if (atMs < fromMs || atMs >= toMs) continue;
      const answer = ask(inventory, ip, atMs);
      const had = labels.find((fact) => fact.uid === uid && fact.fromMs <= atMs && atMs < fact.toMs)?.value;
      askedCount++;
      if (answer.uid === uid) exactCount++;
      const isOther = answer.uid !== null && answer.uid !== uid;
      const isLabelled = answer.labels !== null && JSON.stringify(answer.labels) !== JSON.stringify(had);
      if (isOther || isLabelled)
        wrong.push(
          `${ip} at ${atMs - startMs}: ${JSON.stringify(answer)}, was ${uid} ${JSON.stringify(had)}`,
        );
    }
  }
  return { wrong, askedCount, exactCount };
}

describe('after a time that nobody saw', () => {
  test('who took an address over, was told and then was gone without a word leaves it to nobody for certain', () => {
    const told = new Told();
    const { cluster } = told;
    const first = cluster.create({});
    cluster.address(first, '10.1.3.221', 0);
    told.hear(2);
    cluster.nowMs += 20_000;
    told.vouch();
    told.mark();
    cluster.delete(first, 0);
    const second = cluster.create({});
    cluster.address(second, '10.1.3.221', 0);
    cluster.nowMs += 10;
    told.hear(3);
    cluster.nowMs += 1_000;
    told.crash((count) => count);
    cluster.delete(second, 0);
    cluster.nowMs += 5_000;
    told.begin();
    assert.deepEqual(judge(told).wrong, []);
  });

  test('whatever changes, however late it is heard, whatever of it is lost: nobody else is named for certain, nor other labels', () => {
    const exactShare = hold([...changes, ...hearings, ...losses], 1_500, (told) => {
      told.cluster.nowMs += 3_000;
      told.begin();
    });
    // Were nothing certain, nothing could be wrong.
    assert.ok(exactShare > 0.2, `${exactShare} were certain`);
  });
});

test('while everything is heard, however late, nobody else is named for certain, nor other labels, though one is only taken away', () => {
  const exactShare = hold(
    [...changes, ...hearings, { weight: 1, arbitrary: fc.constant('unlabel') }],
    1_000,
    (told) => told.hear(1_000),
  );
  assert.ok(exactShare > 0.5, `${exactShare} were certain`);
});

const changes = [
  { weight: 4, arbitrary: fc.constantFrom('create', 'address', 'delete') },
  { weight: 2, arbitrary: fc.constantFrom('label', 'create-with-address') },
] as const;
const hearings = [{ weight: 6, arbitrary: fc.constantFrom('hear', 'hear-all', 'vouch', 'mark') }] as const;
const losses = [
  { weight: 1, arbitrary: fc.constantFrom('lose', 'crash') },
  { weight: 1, arbitrary: fc.constant('begin') },
] as const;

/** Judges many random times, each brought to its end by `end`; returns the share of the answers that were certain. */
function hold(
  actions: readonly { readonly weight: number; readonly arbitrary: fc.Arbitrary<Step['what']> }[],
  numRuns: number,
  end: (told: Told) => void,
): number {
  const step = fc.record({
    what: fc.oneof(...actions),
    passMs: fc.constantFrom(0, 1, 10, 300, 1_000, 2_500),
    lagMs: fc.constantFrom(0, 0, 5, 400),
    dice: fc.nat({ max: 1_000_000 }),
  });
  let askedCount = 0;
  let exactCount = 0;
  fc.assert(
    fc.property(fc.array(step, { minLength: 1, maxLength: 60 }), (steps) => {
      const told = new Told();
      for (const one of steps) take(told, one);
      end(told);
      const found = judge(told);
      askedCount += found.askedCount;
      exactCount += found.exactCount;
      assert.deepEqual(found.wrong, []);
    }),
    { numRuns },
  );
  return exactCount / askedCount;
}

interface Step {
  readonly what:
    | 'create'
    | 'address'
    | 'delete'
    | 'label'
    | 'unlabel'
    | 'create-with-address'
    | 'hear'
    | 'hear-all'
    | 'vouch'
    | 'mark'
    | 'lose'
    | 'crash'
    | 'begin';
  readonly passMs: number;
  readonly lagMs: number;
  readonly dice: number;
}

const labelSets: readonly Labels[] = [{ role: 'leader' }, { role: 'follower' }, { role: 'none' }];

function take(told: Told, { what, passMs, lagMs, dice }: Step): void {
  const { cluster } = told;
  cluster.nowMs += passMs;
  const pod = cluster.pods[dice % cluster.pods.length];
  // What is only taken away leaves no note: see 'unlabel'.
  const labels = labelSets[dice % labelSets.length] ?? {};
  const ip = `10.1.0.${dice % 2}`;
  const isFree = cluster.pods.every((other) => other.ip !== ip);
  switch (what) {
    case 'create':
      cluster.create(labels);
      return;
    case 'create-with-address': {
      const fresh = cluster.create(labels);
      if (isFree) cluster.address(fresh, ip, lagMs);
      return;
    }
    case 'address':
      if (pod !== undefined && isFree) cluster.address(pod, ip, lagMs);
      return;
    case 'label':
      if (pod !== undefined) cluster.label(pod, labels);
      return;
    case 'unlabel':
      if (pod !== undefined) cluster.label(pod, {});
      return;
    case 'delete':
      if (pod !== undefined) cluster.delete(pod, lagMs);
      return;
    case 'hear':
      told.hear(1);
      return;
    case 'hear-all':
      told.hear(1_000);
      return;
    case 'vouch':
      told.vouch();
      return;
    case 'mark':
      told.mark();
      return;
    case 'lose':
      told.lose();
      return;
    case 'crash': {
      let seed = dice;
      told.crash((count) => {
        seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648;
        return Math.floor(seed / 65_536) % count;
      });
      return;
    }
    case 'begin':
      told.begin();
  }
}

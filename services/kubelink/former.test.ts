import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import {
  type FormerLabels,
  type InventoryEvent,
  inventoryKey,
  type WorkloadEvent,
} from '../../lib/inventory/events.ts';
import { maxFormerLabels } from '../../schemas/inventory-event.ts';
import { InventoryState, type Publication } from './state.ts';

const hourMs = 3_600_000;
const endedRetentionMs = 24 * hourMs;
const startMs = 1_000_000_000;

function stateOf(): InventoryState {
  return new InventoryState({ activeSources: new Set(['a']), endedRetentionMs });
}

function pod(app: string, owner = ''): WorkloadEvent {
  return {
    v: 1,
    type: 'workload',
    kind: 'pod',
    cluster: 'east',
    uid: 'p',
    name: 'p',
    namespace: 'shop',
    node: 'n1',
    hostNetwork: false,
    labels: { app },
    annotations: owner === '' ? {} : { owner },
    addresses: [{ ip: '10.0.0.1', network: 'east', sinceMs: startMs }],
    sinceMs: startMs,
  };
}

function formerOf(publications: readonly Publication[]): readonly FormerLabels[] {
  const [only, ...others] = publications;
  assert.equal(others.length, 0);
  assert.equal(only?.event?.type, 'workload');
  return (only?.event?.type === 'workload' && only.event.former) || [];
}

describe('former labels', () => {
  test('end when the source heard of the change, or when it says that it was', () => {
    const state = stateOf();
    state.snapshot('a', [pod('shop')], startMs + 10);
    const heard = formerOf(state.snapshot('a', [pod('cart')], startMs + 50));
    assert.deepEqual(heard, [{ untilMs: startMs + 50, labels: { app: 'shop' }, annotations: {} }]);
    const known = formerOf(state.change('a', pod('cart', 'ann'), startMs + 90, startMs + 70));
    assert.deepEqual(known, [
      { untilMs: startMs + 50, labels: { app: 'shop' }, annotations: {} },
      { untilMs: startMs + 70, labels: { app: 'cart' }, annotations: {} },
    ]);
  });

  test('outlive a restart, and what is said anew without a change adds none', () => {
    const state = stateOf();
    state.snapshot('a', [pod('shop')], startMs + 10);
    const [publication] = state.snapshot('a', [pod('cart')], startMs + 50);
    const restarted = stateOf();
    restarted.restore(publication!);
    assert.deepEqual(restarted.snapshot('a', [pod('cart')], startMs + 60), []);
    assert.deepEqual(
      formerOf(restarted.change('a', pod('till'), startMs + 70)).map(({ labels }) => labels.app),
      ['shop', 'cart'],
    );
  });

  test('share the time in which nobody knows when each of them was, where several changes are heard at once', () => {
    const state = stateOf();
    state.snapshot('a', [pod('shop')], startMs + 10);
    const nowMs = startMs + 500;
    let former: readonly FormerLabels[] = [];
    for (const app of ['cart', 'shop', 'till'])
      former = formerOf(state.change('a', pod(app), nowMs, nowMs, startMs + 100));
    assert.deepEqual(
      former.map(({ untilMs, knownToMs, labels }) => [
        labels.app,
        (knownToMs ?? 0) - startMs,
        untilMs - startMs,
      ]),
      [
        ['shop', 100, 300],
        ['cart', 300, 400],
        ['shop', 400, 500],
      ],
    );
  });

  test('stay with a workload that ended', () => {
    const state = stateOf();
    state.snapshot('a', [pod('shop')], startMs + 10);
    state.change('a', pod('cart'), startMs + 20);
    assert.equal(formerOf(state.gone('a', inventoryKey(pod('')), startMs + 30)).length, 1);
  });

  test('that were never in effect are none: changes before the begin, at once, or told out of order', () => {
    const state = stateOf();
    state.snapshot('a', [pod('a')], startMs + 10);
    assert.deepEqual(formerOf(state.change('a', pod('b'), startMs + 20, startMs)), []);
    assert.equal(formerOf(state.change('a', pod('c'), startMs + 30)).length, 1);
    assert.equal(formerOf(state.change('a', pod('d'), startMs + 30)).length, 1);
    const late = formerOf(state.change('a', pod('e'), startMs + 40, startMs + 25));
    assert.deepEqual(late, [{ untilMs: startMs + 30, labels: { app: 'b' }, annotations: {} }]);
  });

  test('are bounded in number and in age, the oldest go first', () => {
    const state = stateOf();
    state.snapshot('a', [pod('0')], startMs + 1);
    let last: readonly FormerLabels[] = [];
    for (let i = 1; i <= 3 * maxFormerLabels; i++) {
      last = formerOf(state.change('a', pod(String(i)), startMs + i * 10));
      assert.ok(last.length <= maxFormerLabels);
    }
    assert.equal(last.length, maxFormerLabels);
    assert.equal(last.at(-1)?.labels.app, String(3 * maxFormerLabels - 1));
    const later = formerOf(state.change('a', pod('x'), startMs + endedRetentionMs + 3 * hourMs));
    assert.deepEqual(
      later.map(({ labels }) => labels.app),
      [String(3 * maxFormerLabels)],
    );
  });

  test('of a namespace and of a service are kept too', () => {
    const state = stateOf();
    const namespace = (team: string): InventoryEvent => ({
      v: 1,
      type: 'namespace',
      cluster: 'east',
      name: 'shop',
      labels: { team },
      annotations: {},
    });
    const service = (app: string): InventoryEvent => ({
      v: 1,
      type: 'service',
      cluster: 'east',
      uid: 's',
      name: 's',
      namespace: 'shop',
      labels: { app },
      annotations: {},
      selector: {},
      addresses: [],
      ports: [],
      sinceMs: startMs,
    });
    state.snapshot('a', [namespace('x'), service('x')], startMs + 10);
    for (const { event } of state.snapshot('a', [namespace('y'), service('y')], startMs + 20)) {
      assert.ok(event?.type === 'namespace' || event?.type === 'service');
      assert.deepEqual(
        event.former?.map(({ untilMs, labels }) => [untilMs, Object.values(labels)]),
        [[startMs + 20, ['x']]],
      );
    }
  });
});

/** Whose labels they were at a time, by what was published. */
function appAt(event: WorkloadEvent, atMs: number): string | undefined {
  return ((event.former ?? []).find(({ untilMs }) => untilMs > atMs) ?? event).labels.app;
}

test('at any time since the retention, published labels are those that were in effect then', () => {
  const change = fc.record({
    app: fc.constantFrom('x', 'y', 'z'),
    /** How long after the last change it took effect, and how much later it was heard, ms. */
    afterMs: fc.constantFrom(0, 1, 500, 9 * hourMs),
    heardAfterMs: fc.constantFrom(0, 3),
    isDated: fc.boolean(),
    isSnapshot: fc.boolean(),
    restarts: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(change, { minLength: 1, maxLength: maxFormerLabels }), (changes) => {
      let state = stateOf();
      let published: Publication | undefined = state.snapshot('a', [pod('first')], startMs + 1)[0];
      const history = [{ app: 'first', fromMs: startMs }];
      let effectMs = startMs + 1;
      let heardMs = effectMs;
      for (const { app, afterMs, heardAfterMs, isDated, isSnapshot, restarts } of changes) {
        effectMs = Math.max(effectMs + afterMs, heardMs);
        heardMs = effectMs + heardAfterMs;
        if (restarts && published !== undefined) {
          state = stateOf();
          state.restore(published);
        }
        const publications = isSnapshot
          ? state.snapshot('a', [pod(app)], heardMs)
          : state.change('a', pod(app), heardMs, isDated ? effectMs : undefined);
        published = publications[0] ?? published;
        history.push({ app, fromMs: isDated && !isSnapshot ? effectMs : heardMs });
      }
      const event = published?.event;
      assert.equal(event?.type, 'workload');
      if (event?.type !== 'workload') return;
      const ends = (event.former ?? []).map(({ untilMs }) => untilMs);
      assert.deepEqual(
        ends,
        [...new Set(ends)].sort((a, b) => a - b),
      );
      const moments = history.flatMap(({ fromMs }) => [fromMs - 1, fromMs]);
      for (const atMs of moments) {
        if (atMs < startMs || atMs < heardMs - endedRetentionMs) continue;
        const expected = history.findLast(({ fromMs }) => fromMs <= atMs)?.app;
        assert.equal(appAt(event, atMs), expected, `at ${atMs - startMs} ms`);
      }
    }),
    { numRuns: 500 },
  );
});

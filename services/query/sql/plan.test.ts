import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { windowFilter } from '../filters.ts';
import { type EdgePlan, planEdges, planSeries } from './plan.ts';

const nowS = 1_770_000_077;
const hour = 3600;
const kept = { minuteDays: 30 };
const plan = (sinceS: number, untilS: number | null): EdgePlan =>
  planEdges(windowFilter({ sinceS, untilS }), nowS * 1000, kept);

test('the parts of a plan cover its window without a gap or an overlap', () => {
  const times = fc.integer({ min: nowS - 29 * 86_400, max: nowS - 60 });
  fc.assert(
    fc.property(times, fc.option(fc.integer({ min: 1, max: 40 * 86_400 })), (sinceS, length) => {
      const untilS = length === null ? null : sinceS + length;
      const { parts, window } = plan(sinceS, untilS);
      const inOrder = parts.toSorted((a, b) => a.fromS - b.fromS);
      assert.equal(inOrder[0]?.fromS, window.sinceS);
      assert.equal(inOrder.at(-1)?.toS, window.untilS);
      inOrder.slice(1).forEach((part, index) => {
        assert.equal(part.fromS, inOrder[index]?.toS);
      });
      for (const part of parts) {
        const step = part.table === 'edges_1h' ? hour : 60;
        assert.equal(part.fromS % step, 0);
        assert.ok(part.toS === null || (part.toS % step === 0 && part.toS > part.fromS));
      }
    }),
  );
});

test('a window is widened to whole minutes and no further', () => {
  const { window } = plan(nowS - 5 * hour - 30, nowS - hour - 30);
  assert.ok(window.sinceS <= nowS - 5 * hour - 30 && window.sinceS > nowS - 5 * hour - 90);
  assert.ok(window.untilS !== null && window.untilS >= nowS - hour - 30 && window.untilS < nowS - hour + 30);
});

test('short windows come from minutes, long ones from hours with minutes around them', () => {
  assert.equal(plan(nowS - 300, null).table, 'edges_1m');
  assert.equal(plan(nowS - 24 * hour, null).table, 'edges_1h+edges_1m');
  assert.equal(plan(Math.floor(nowS / hour) * hour - 24 * hour, null).table, 'edges_1h');
});

test('what is older than the minutes comes from hours alone', () => {
  const { table, window } = plan(nowS - 40 * 86_400, nowS - 35 * 86_400);
  assert.equal(table, 'edges_1h');
  assert.equal(window.sinceS % hour, 0);
});

test('an end to come leaves the window open, for clocks differ', () => {
  assert.equal(plan(nowS - 300, nowS + 10).window.untilS, null);
});

test('addresses of workloads are asked of single flows, to the second', () => {
  const filter = {
    ...windowFilter({ sinceS: nowS - 301, untilS: nowS - 7 }),
    address: { first: '::ffff:10.0.0.0', last: '::ffff:10.255.255.255' },
  };
  const { table, window } = planEdges(filter, nowS * 1000, kept);
  assert.equal(table, 'flows');
  assert.deepEqual(window, { sinceS: nowS - 301, untilS: nowS - 7 });
});

test('a series with steps below an hour comes from minutes', () => {
  const filter = windowFilter({ sinceS: nowS - 24 * hour, untilS: null });
  assert.equal(planSeries(filter, 300, nowS * 1000, kept).table, 'edges_1m');
  assert.equal(planSeries(filter, 2 * hour, nowS * 1000, kept).table, 'edges_1h+edges_1m');
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { decodeCheckpoint, encodeCheckpoint } from './checkpoint.ts';
import { type ConnectionReport, ConnectionTable, type ConnectionTableOptions } from './connections.ts';
import { type ConnectionEvent, type Counters, noHints } from './flow-event.ts';

const startMs = 1_700_000_000_000;

function makeTable(options: Partial<ConnectionTableOptions> = {}): ConnectionTable {
  return new ConnectionTable({
    maxConnections: 100,
    quietReportMs: 300_000,
    counterWaitMs: 10_000,
    observedSinceMs: startMs,
    reportedUntilMs: null,
    checkpoint: null,
    ...options,
  });
}

function counters(forward: number, reverse: number): Counters {
  return {
    bytesForward: forward * 100,
    bytesReverse: reverse * 1000,
    packetsForward: forward,
    packetsReverse: reverse,
  };
}

function event(
  kind: ConnectionEvent['kind'],
  afterMs: number,
  more: Partial<ConnectionEvent> & { port?: number } = {},
): ConnectionEvent {
  const { port = 40_000, ...rest } = more;
  return {
    kind,
    key: `key ${port}`,
    timeMs: startMs + afterMs,
    ends: {
      protocol: 6,
      source: '10.0.0.1',
      sourcePort: port,
      destination: '10.0.0.2',
      destinationPort: 443,
      original: null,
      flags: 0,
    },
    state: kind === 'begin' ? 'new' : 'open',
    counters: null,
    ageMs: null,
    processName: '',
    hints: noHints,
    ...rest,
  };
}

function reportsOf(table: ConnectionTable, afterMs: number, hasCounters = true): ConnectionReport[] {
  const reports: ConnectionReport[] = [];
  table.report(startMs + afterMs, { hasCounters }, (report) => reports.push(report));
  return reports;
}

function dump(table: ConnectionTable, afterMs: number, ...entries: ConnectionEvent[]): void {
  table.apply({ kind: 'dump-begin', timeMs: startMs + afterMs });
  for (const entry of entries) table.apply(entry);
  table.apply({ kind: 'dump-end', timeMs: startMs + afterMs });
}

test('a connection counts once, and its bytes are those since the report before', () => {
  const table = makeTable();
  dump(table, 0);
  table.apply(event('begin', 100));
  dump(table, 1000, event('seen', 1000, { counters: counters(3, 2), ageMs: 0 }));
  const [first, ...none] = reportsOf(table, 1000);
  assert.deepEqual(none, []);
  assert.equal(first?.connectionCount, 1);
  assert.equal(first?.state, 'open');
  assert.equal(first?.startMs, startMs + 100);
  assert.equal(first?.bytesForward, 300);
  dump(table, 2000, event('seen', 2000, { counters: counters(3, 2), ageMs: 1000 }));
  assert.deepEqual(reportsOf(table, 2000), [], 'no news, no report');
  dump(table, 3000, event('seen', 3000, { counters: counters(5, 6), ageMs: 2000 }));
  const [second] = reportsOf(table, 3000);
  assert.equal(second?.connectionCount, 0);
  assert.equal(second?.bytesForward, 200);
  assert.equal(second?.bytesReverse, 4000);
  assert.equal(second?.startMs, startMs + 1000);
  table.apply(event('end', 4000, { state: 'closed', counters: counters(6, 6) }));
  const [last] = reportsOf(table, 4500);
  assert.equal(last?.state, 'closed');
  assert.equal(last?.endMs, startMs + 4000);
  assert.equal(last?.packetsForward, 1);
  assert.equal(table.size, 0);
});

test('a quiet connection is told again after the longest silence that is allowed', () => {
  const table = makeTable({ quietReportMs: 60_000 });
  dump(table, 0);
  table.apply(event('begin', 100, { state: 'open' }));
  assert.equal(reportsOf(table, 1000, false).length, 1);
  assert.equal(reportsOf(table, 60_000, false).length, 0);
  const [again] = reportsOf(table, 61_100, false);
  assert.equal(again?.connectionCount, 0);
  assert.equal(again?.state, 'open');
});

test('a young connection waits for its counters, but not for ever', () => {
  const table = makeTable();
  dump(table, 0);
  table.apply(event('begin', 100));
  assert.deepEqual(reportsOf(table, 200), []);
  assert.equal(reportsOf(table, 10_200).length, 1);
});

test('what was open before anyone looked counts once, without the bytes of its past', () => {
  const table = makeTable();
  dump(table, 10, event('seen', 10, { counters: counters(900, 900), ageMs: 3_600_000 }));
  const [report] = reportsOf(table, 1000);
  assert.equal(report?.connectionCount, 1);
  assert.equal(report?.bytesForward, 0);
  assert.ok((report?.startMs ?? 0) >= startMs);
  dump(table, 2000, event('seen', 2000, { counters: counters(901, 900), ageMs: 3_602_000 }));
  assert.equal(reportsOf(table, 2000)[0]?.bytesForward, 100);
});

test('a restart neither counts a connection anew nor loses what it did meanwhile', () => {
  const before = makeTable();
  dump(before, 0);
  before.apply(event('begin', 100));
  dump(before, 1000, event('seen', 1000, { counters: counters(3, 2) }));
  reportsOf(before, 1000);
  const checkpoint = decodeCheckpoint(encodeCheckpoint(before.checkpoint()));
  assert.ok(checkpoint !== null);
  const table = makeTable({ observedSinceMs: startMs + 5000, reportedUntilMs: startMs + 1000, checkpoint });
  dump(
    table,
    5010,
    event('seen', 5010, { counters: counters(7, 2), ageMs: 4000 }),
    event('seen', 5010, { counters: counters(4, 4), ageMs: 3000, port: 41_000, key: 'opened while away' }),
    event('seen', 5010, { counters: counters(4, 4), port: 42_000, key: 'the same, of unknown age' }),
  );
  const reports = reportsOf(table, 6000);
  assert.deepEqual(
    reports.map(({ connectionCount, packetsForward }) => [connectionCount, packetsForward]),
    [
      [0, 4],
      [1, 4],
      [1, 4],
    ],
  );
});

test('without a checkpoint the age decides what an earlier run has told', () => {
  const table = makeTable({ reportedUntilMs: startMs - 10_000 });
  dump(
    table,
    10,
    event('seen', 10, { ageMs: 60_000, counters: counters(9, 9) }),
    event('seen', 10, { ageMs: 5000, counters: counters(4, 4), port: 41_000 }),
  );
  const reports = reportsOf(table, 1000);
  assert.deepEqual(
    reports.map(({ connectionCount, ends }) => [connectionCount, ends.sourcePort]),
    [[1, 41_000]],
  );
});

test('a dump that overtakes the event of a beginning counts it once, whole', () => {
  const table = makeTable();
  dump(table, 50, event('seen', 60, { counters: counters(2, 2), ageMs: 0 }));
  table.apply(event('begin', 40));
  const reports = reportsOf(table, 1000);
  assert.equal(reports.length, 1);
  assert.equal(reports[0]?.connectionCount, 1);
  assert.equal(reports[0]?.packetsForward, 2);
});

test('a dump that is older than the end does not bring the connection back', () => {
  const table = makeTable();
  dump(table, 0);
  table.apply(event('begin', 100));
  table.apply({ kind: 'dump-begin', timeMs: startMs + 900 });
  table.apply(event('end', 910, { state: 'closed', counters: counters(2, 2) }));
  table.apply(event('seen', 920, { counters: counters(2, 2), ageMs: 0 }));
  assert.equal(reportsOf(table, 950).length, 1);
  table.apply(event('seen', 960, { counters: counters(2, 2), ageMs: 0 }));
  table.apply({ kind: 'dump-end', timeMs: startMs + 1000 });
  assert.deepEqual(reportsOf(table, 1100), []);
  assert.equal(table.size, 0);
});

test('the same ports used again are another connection', () => {
  const table = makeTable();
  dump(table, 0);
  table.apply(event('begin', 100));
  table.apply(event('end', 200, { state: 'refused', counters: counters(1, 1) }));
  table.apply(event('begin', 300));
  table.apply(event('end', 400, { state: 'refused', counters: counters(1, 1) }));
  // The end of this one was lost.
  table.apply(event('begin', 500, { counters: counters(0, 0) }));
  table.apply(event('begin', 600));
  table.apply(event('end', 700, { state: 'closed', counters: counters(8, 8) }));
  const reports = reportsOf(table, 1000);
  assert.deepEqual(
    reports.map(({ state }) => state),
    ['refused', 'refused', 'unknown', 'closed'],
  );
  assert.ok(reports.every(({ connectionCount }) => connectionCount === 1));
});

test('a connection whose end was missed is noticed by two dumps', () => {
  const table = makeTable();
  dump(table, 0);
  table.apply(event('begin', 100, { state: 'open' }));
  dump(table, 1000, event('seen', 1000, { counters: counters(2, 2) }));
  reportsOf(table, 1000);
  dump(table, 2000);
  assert.deepEqual(reportsOf(table, 2000), []);
  dump(table, 3000);
  assert.equal(reportsOf(table, 3000)[0]?.state, 'unknown');
  assert.equal(table.size, 0);
});

test('a full table still tells of every connection once, when it ends', () => {
  const table = makeTable({ maxConnections: 2 });
  dump(table, 0);
  for (let port = 1; port <= 5; port++) table.apply(event('begin', 100, { port }));
  assert.equal(table.size, 2);
  assert.equal(table.untrackedCount, 3);
  for (let port = 1; port <= 4; port++) {
    table.apply(event('end', 200, { port, state: 'closed', counters: counters(port, 1), ageMs: 0 }));
  }
  const reports = reportsOf(table, 1000);
  assert.deepEqual(reports.map(({ ends }) => ends.sourcePort).sort(), [1, 2, 3, 4]);
  assert.ok(
    reports.every(
      ({ connectionCount, ends, packetsForward }) =>
        connectionCount === 1 && packetsForward === ends.sourcePort,
    ),
  );
  table.apply(event('end', 2000, { port: 5, state: 'closed', counters: counters(5, 1), ageMs: 1000 }));
  assert.equal(reportsOf(table, 2500)[0]?.connectionCount, 1);
  assert.equal(table.droppedCount, 0);
});

test('whatever the order of dumps and reports, the sums are those of the kernel', () => {
  const step = fc.record({
    port: fc.integer({ min: 1, max: 4 }),
    packets: fc.integer({ min: 1, max: 9 }),
    do: fc.constantFrom('talk', 'dump', 'report', 'end'),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const table = makeTable();
      const truth = new Map<
        number,
        { packets: number; connections: number; open: boolean; seconds: number }
      >();
      const told = new Map<number, { packets: number; connections: number }>();
      let at = 0;
      let packetsNow = new Map<number, number>();
      const take = (reports: ConnectionReport[]): void => {
        for (const { ends, packetsForward, connectionCount } of reports) {
          const sum = told.get(ends.sourcePort) ?? { packets: 0, connections: 0 };
          told.set(ends.sourcePort, {
            packets: sum.packets + packetsForward,
            connections: sum.connections + connectionCount,
          });
        }
      };
      dump(table, 0);
      for (const { port, packets, do: what } of steps) {
        at += 1000;
        const now = truth.get(port) ?? { packets: 0, connections: 0, open: false, seconds: 0 };
        if (what === 'talk') {
          if (!now.open) table.apply(event('begin', at, { port, key: `${port}` }));
          truth.set(port, {
            packets: now.packets + packets,
            connections: now.connections + (now.open ? 0 : 1),
            open: true,
            seconds: at,
          });
          packetsNow.set(port, (packetsNow.get(port) ?? 0) + packets);
        } else if (what === 'end' && now.open) {
          const total = packetsNow.get(port) ?? 0;
          table.apply(
            event('end', at, { port, key: `${port}`, state: 'closed', counters: counters(total, 0) }),
          );
          truth.set(port, { ...now, open: false });
          packetsNow = new Map([...packetsNow].filter(([other]) => other !== port));
        } else if (what === 'dump') {
          const open = [...packetsNow].map(([one, total]) =>
            event('seen', at, { port: one, key: `${one}`, counters: counters(total, 0) }),
          );
          dump(table, at, ...open);
        } else if (what === 'report') {
          take(reportsOf(table, at));
        }
      }
      at += 1000;
      dump(
        table,
        at,
        ...[...packetsNow].map(([one, total]) =>
          event('seen', at, { port: one, key: `${one}`, counters: counters(total, 0) }),
        ),
      );
      take(reportsOf(table, at));
      for (const [port, { packets, connections }] of truth) {
        if (connections > 0) assert.deepEqual(told.get(port), { packets, connections });
      }
    }),
  );
});

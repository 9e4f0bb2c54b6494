import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ConnectionEvent } from '../flow-event.ts';
import { socketStates } from './parse.ts';
import { processName } from './processes.ts';
import { SocketTable } from './sockets.ts';

type Row = readonly [endpoints: string, state: number, inode: number, protocol?: 'tcp' | 'udp'];

const { established, timeWait, listen, synSent, close } = socketStates;
const own = '0100007F';
const other = '0200000A';

/** A table with the events of each pass; process 7 has every socket that is looked for. */
function makePasses(pods: ReadonlyMap<number, string> = new Map()) {
  const wanted = new Set<number>();
  const podOf = (inode: number): string => pods.get(inode) ?? '';
  let isFound = true;
  const table = new SocketTable({
    isOwn: (address) => address.startsWith('127.') || address === '10.0.0.1',
    onSocket: (inode) => wanted.add(inode),
    onSocketGone: (inode) => wanted.delete(inode),
    isSought: (inode) => wanted.has(inode),
  });
  let nowMs = 1_700_000_000_000;
  const pass = (...rows: Row[]): ConnectionEvent[] => {
    const events: ConnectionEvent[] = [];
    nowMs += 1000;
    table.beginPass();
    for (const [endpoints, state, inode, protocol = 'tcp'] of rows) {
      table.row(protocol, endpoints, state, inode, nowMs);
    }
    table.endPass(nowMs, (event) => events.push(event));
    if (isFound) {
      for (const inode of wanted) {
        table.owned(inode, { name: `process-${inode}`, podUid: podOf(inode) });
        wanted.delete(inode);
      }
    }
    table.emitChanges(nowMs, (event) => events.push(event));
    return events;
  };
  return {
    table,
    pass,
    findNothing: () => {
      isFound = false;
    },
  };
}

const server: Row = [`00000000:1F90 00000000:0000`, listen, 1];
const summary = (events: readonly ConnectionEvent[]) =>
  events.map(({ kind, state, ends }) => `${kind} ${state} ${ends.sourcePort}>${ends.destinationPort}`);

test('what the first pass shows is older, what a later one shows began', () => {
  const { pass } = makePasses();
  assert.deepEqual(summary(pass(server, [`0100000A:9C40 ${other}:01BB`, established, 5])), [
    'seen open 40000>443',
  ]);
  const events = pass(
    server,
    [`0100000A:9C40 ${other}:01BB`, established, 5],
    [`0100000A:9C41 ${other}:01BB`, synSent, 6],
  );
  assert.deepEqual(summary(events), ['begin new 40001>443']);
  assert.equal(events[0]?.processName, 'process-6');
});

test('a port that is listened on makes this host the destination', () => {
  const { pass } = makePasses();
  pass(server);
  const [event] = pass(server, [`0100000A:1F90 ${other}:9C40`, established, 5]);
  assert.equal(event?.ends.source, '10.0.0.2');
  assert.equal(event?.ends.destinationPort, 8080);
});

test('both ends of a loopback connection are one, with the process that opened it', () => {
  const { pass } = makePasses();
  pass(server);
  const ends: Row[] = [
    [`${own}:1F90 ${own}:9C40`, established, 11],
    [`${own}:9C40 ${own}:1F90`, established, 12],
  ];
  const events = pass(server, ...ends);
  assert.deepEqual(summary(events), ['begin open 40000>8080']);
  assert.equal(events[0]?.processName, 'process-12');
  const closed = pass(server, [`${own}:9C40 ${own}:1F90`, timeWait, 0]);
  assert.deepEqual(summary(closed), ['update closed 40000>8080']);
  assert.deepEqual(summary(pass(server)), ['end closed 40000>8080']);
});

test('a connection between two passes is seen by its TIME_WAIT, and reuse of its ports is another one', () => {
  const { pass, table } = makePasses();
  pass();
  assert.deepEqual(summary(pass([`0100000A:9C40 ${other}:01BB`, timeWait, 0])), ['begin closed 40000>443']);
  assert.deepEqual(summary(pass([`0100000A:9C40 ${other}:01BB`, established, 9])), [
    'end closed 40000>443',
    'begin open 40000>443',
  ]);
  assert.equal(table.openCount, 2);
});

test('connected UDP sockets are connections, others serve', () => {
  const { pass } = makePasses();
  pass();
  const events = pass(
    ['00000000:0035 00000000:0000', close, 3, 'udp'],
    [`0100000A:9C40 ${other}:0035`, established, 4, 'udp'],
  );
  assert.deepEqual(summary(events), ['begin open 40000>53']);
  assert.equal(events[0]?.ends.protocol, 17);
});

test('a process that is not found holds a connection back for two passes only', () => {
  const { pass, findNothing } = makePasses();
  pass();
  findNothing();
  const row: Row = [`0100000A:9C40 ${other}:01BB`, established, 5];
  assert.deepEqual(summary(pass(row)), []);
  assert.deepEqual(summary(pass(row)), []);
  assert.deepEqual(summary(pass(row)), ['begin open 40000>443']);
});

test('opens are counted as the kernel counts them: both ends of a loopback connection', () => {
  const { pass, table } = makePasses();
  pass(server, [`0100000A:9C39 ${other}:01BB`, established, 2]);
  assert.equal(table.openCount, 0, 'the first pass shows what began before');
  const loopback: Row[] = [
    [`${own}:1F90 ${own}:9C40`, established, 11],
    [`${own}:9C40 ${own}:1F90`, established, 12],
  ];
  pass(server, ...loopback, [`0100000A:9C41 ${other}:01BB`, synSent, 13]);
  assert.equal(table.openCount, 3);
  pass(server, ...loopback, [`0100000A:9C41 ${other}:01BB`, established, 13]);
  assert.equal(table.openCount, 3);
});

test('a process has the name of its program, even where its main thread has another', () => {
  assert.equal(processName('curl', '/usr/bin/curl', 'curl'), 'curl');
  assert.equal(processName('MainThread', '/opt/node/bin/node', 'node'), 'node');
  assert.equal(processName('python3', '/usr/bin/python3.11', 'python3'), 'python3');
  assert.equal(processName('java', '/usr/lib/jvm/bin/java (deleted)', '/usr/bin/java'), 'java');
  assert.equal(processName('kworker', '', ''), 'kworker');
});

test('the pod of a process is told for the end that the process is, at loopback for both', () => {
  const { pass } = makePasses(
    new Map([
      [5, 'client-pod'],
      [6, 'server-pod'],
      [7, 'opener'],
      [8, 'taker'],
    ]),
  );
  pass(server);
  const events = pass(
    server,
    [`0100000A:9C40 ${other}:01BB`, established, 5],
    [`0100000A:1F90 ${other}:9C41`, established, 6],
    [`${own}:9C42 ${own}:1F90`, established, 7],
    [`${own}:1F90 ${own}:9C42`, established, 8],
    [`0100000A:9C43 ${other}:01BB`, established, 9],
  );
  const hints = new Map(events.map(({ ends, hints: found }) => [ends.sourcePort, found]));
  assert.deepEqual(hints.get(40_000), { source: 'client-pod', destination: '' });
  assert.deepEqual(hints.get(40_001), { source: '', destination: 'server-pod' });
  assert.deepEqual(hints.get(40_002), { source: 'opener', destination: 'taker' });
  assert.deepEqual(hints.get(40_003), { source: '', destination: '' });
});

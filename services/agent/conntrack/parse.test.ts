import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { netlinkDropCount, untrackedCount } from './losses.ts';
import { conntrackEvent, parseConntrackLine, translatedSource } from './parse.ts';

// Captured with conntrack 1.4.7 on Linux 6.18, between network namespaces.
const tcpNew =
  '[1795231584.415275]\t    [NEW] ipv4     2 tcp      6 120 SYN_SENT src=10.77.1.2 dst=10.77.2.2 sport=42772 dport=8080 [UNREPLIED] src=10.77.2.2 dst=10.77.1.2 sport=8080 dport=42772 id=3826179217';
const tcpTimeWait =
  '[1795231584.417537]\t [UPDATE] ipv4     2 tcp      6 120 TIME_WAIT src=10.77.1.2 dst=10.77.2.2 sport=42772 dport=8080 src=10.77.2.2 dst=10.77.1.2 sport=8080 dport=42772 [ASSURED] id=3826179217';
const refused =
  '[1795231584.420539]\t[DESTROY] ipv4     2 tcp      6 120 CLOSE src=10.77.1.2 dst=10.77.2.2 sport=42412 dport=81 packets=1 bytes=60 [UNREPLIED] src=10.77.2.2 dst=10.77.1.2 sport=81 dport=42412 packets=1 bytes=40 delta-time=0 id=2684431570';
const ipv6Entry =
  'ipv6     10 tcp      6 117 TIME_WAIT src=fd77:1::2 dst=fd77:2::2 sport=58548 dport=8081 packets=6 bytes=5440 src=fd77:2::2 dst=fd77:1::2 sport=8081 dport=58548 packets=4 bytes=5296 [ASSURED] mark=0 delta-time=2 use=1 id=230956275';
const translated =
  'ipv4     2 tcp      6 117 TIME_WAIT src=10.77.1.2 dst=10.96.0.10 sport=53462 dport=80 packets=6 bytes=5320 src=10.77.2.2 dst=10.77.1.2 sport=8080 dport=53462 packets=4 bytes=5216 [ASSURED] mark=0 delta-time=2 use=1 id=369975085';
const masqueraded =
  'ipv4     2 tcp      6 9 CLOSE src=10.77.1.2 dst=10.77.3.2 sport=48718 dport=8080 packets=5 bytes=273 src=10.77.3.2 dst=10.77.3.1 sport=8080 dport=48718 packets=3 bytes=169 [ASSURED] mark=0 delta-time=0 use=1 id=2210471847';
const udpEntry =
  'ipv4     2 udp      17 27 src=10.77.1.2 dst=10.77.2.2 sport=47752 dport=54 packets=1 bytes=33 [UNREPLIED] src=10.77.2.2 dst=10.77.1.2 sport=54 dport=47752 packets=0 bytes=0 mark=0 delta-time=2 use=1 id=1682736624';
const ping =
  '[1795231909.543516]\t    [NEW] ipv4     2 icmp     1 30 src=10.77.1.2 dst=10.77.2.2 type=8 code=0 id=9281 [UNREPLIED] src=10.77.2.2 dst=10.77.1.2 type=0 code=0 id=9281 id=1750244386';
const ping6 =
  'ipv6     10 icmpv6   58 29 src=fd77:1::2 dst=fd77:2::2 type=128 code=0 id=9283 packets=1 bytes=104 src=fd77:2::2 dst=fd77:1::2 type=129 code=0 id=9283 packets=1 bytes=104 mark=0 delta-time=0 use=1 id=3247088552';
const sctp =
  '[1795231909.682996]\t    [NEW] ipv4     2 sctp     132 10 CLOSED src=10.77.1.2 dst=10.77.2.2 sport=40001 dport=9000 [UNREPLIED] src=10.77.2.2 dst=10.77.1.2 sport=9000 dport=40001 id=863622498';
// As kernels before 5.12 end an entry: without timeout and state.
const oldDestroy =
  '[1795231600.000001]\t[DESTROY] ipv4     2 tcp      6 src=10.77.1.2 dst=10.77.2.2 sport=42772 dport=8080 packets=6 bytes=5320 src=10.77.2.2 dst=10.77.1.2 sport=8080 dport=42772 packets=4 bytes=5216 [ASSURED] delta-time=15 id=3826179217';
const lines = [
  tcpNew,
  tcpTimeWait,
  refused,
  ipv6Entry,
  translated,
  masqueraded,
  udpEntry,
  ping,
  ping6,
  sctp,
  oldDestroy,
];

const nowMs = 1_795_231_586_000;

function eventOf(line: string) {
  const parsed = parseConntrackLine(line);
  assert.ok(parsed !== null, line);
  return conntrackEvent(parsed, nowMs);
}

test('a new TCP connection has its ends, its time and no counters', () => {
  const event = eventOf(tcpNew);
  assert.equal(event.kind, 'begin');
  assert.equal(event.timeMs, 1_795_231_584_415);
  assert.equal(event.state, 'new');
  assert.equal(event.counters, null);
  assert.deepEqual(event.ends, {
    protocol: 6,
    source: '10.77.1.2',
    sourcePort: 42772,
    destination: '10.77.2.2',
    destinationPort: 8080,
    original: null,
    flags: 0,
  });
});

test('all events of a connection have one key, another connection has another', () => {
  assert.equal(eventOf(tcpNew).key, eventOf(tcpTimeWait).key);
  assert.equal(eventOf(tcpNew).key, eventOf(oldDestroy).key);
  assert.equal(new Set(lines.map((line) => eventOf(line).key)).size, lines.length - 2);
});

test('a connection in TIME_WAIT is closed, and a dump tells its counters and age', () => {
  assert.equal(eventOf(tcpTimeWait).state, 'closed');
  const event = eventOf(ipv6Entry);
  assert.equal(event.kind, 'seen');
  assert.equal(event.state, 'closed');
  assert.equal(event.timeMs, nowMs);
  assert.equal(event.ageMs, 2000);
  assert.deepEqual(event.counters, {
    bytesForward: 5440,
    bytesReverse: 5296,
    packetsForward: 6,
    packetsReverse: 4,
  });
});

test('a reset that answers the SYN is a refusal, silence is none', () => {
  const event = eventOf(refused);
  assert.equal(event.kind, 'end');
  assert.equal(event.state, 'refused');
  assert.deepEqual(event.counters, {
    bytesForward: 60,
    bytesReverse: 40,
    packetsForward: 1,
    packetsReverse: 1,
  });
  const silent = refused.replace('CLOSE', 'SYN_SENT').replace('packets=1 bytes=40', 'packets=0 bytes=0');
  assert.equal(eventOf(silent).state, 'timed_out');
});

test('an end without a state leaves it to what was known before', () => {
  const event = eventOf(oldDestroy);
  assert.equal(event.kind, 'end');
  assert.equal(event.state, 'unknown');
  assert.equal(event.counters?.bytesForward, 5320);
});

test('destination NAT shows the service address and the real one', () => {
  const { ends } = eventOf(translated);
  assert.equal(`${ends.destination}:${ends.destinationPort}`, '10.77.2.2:8080');
  assert.deepEqual(ends.original, { address: '10.96.0.10', port: 80 });
});

test('source NAT leaves the ends as they are and is visible', () => {
  const parsed = parseConntrackLine(masqueraded);
  assert.ok(parsed !== null);
  assert.equal(conntrackEvent(parsed, nowMs).ends.original, null);
  assert.deepEqual(translatedSource(parsed), { address: '10.77.3.1', port: 48718 });
  const plain = parseConntrackLine(tcpNew);
  assert.ok(plain !== null);
  assert.equal(translatedSource(plain), null);
});

test('an echo has its type in place of a port, and its own id is not taken for that of the entry', () => {
  for (const [line, type, id] of [
    [ping, 8, '1750244386'],
    [ping6, 128, '3247088552'],
  ] as const) {
    const { ends, key } = eventOf(line);
    assert.equal(ends.flags, type * 256);
    assert.deepEqual([ends.sourcePort, ends.destinationPort], [0, type * 256]);
    assert.equal(ends.original, null);
    assert.ok(key.startsWith(`${id} `));
  }
});

test('UDP without an answer is new, SCTP is read like TCP', () => {
  assert.equal(eventOf(udpEntry).state, 'new');
  const event = eventOf(sctp);
  assert.equal(event.ends.protocol, 132);
  assert.equal(event.ends.destinationPort, 9000);
  assert.equal(event.state, 'new');
});

test('what is no connection is told apart, and no damage makes the parser throw', () => {
  for (const text of [
    '',
    'conntrack v1.4.7 (conntrack-tools): 26 flow events have been shown.',
    '[NEW] ipv4',
  ]) {
    assert.equal(parseConntrackLine(text), null);
  }
  fc.assert(
    fc.property(fc.constantFrom(...lines), fc.nat(400), fc.string({ maxLength: 5 }), (line, at, text) => {
      const damaged = line.slice(0, at) + text + line.slice(at + text.length);
      const parsed = parseConntrackLine(damaged);
      if (parsed !== null) conntrackEvent(parsed, nowMs);
      const cut = parseConntrackLine(line.slice(0, at));
      if (cut !== null) conntrackEvent(cut, nowMs);
    }),
  );
});

test('messages the kernel dropped are counted for our sockets only', () => {
  const table = `sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode
0000000040ac877f 12  3166374022 00000007 0        0        0     2        17       37240
0000000073ce423c 12  15291      00000000 0        0        0     2        5        37239
`;
  assert.equal(netlinkDropCount(table, new Set(['37240'])), 17);
  assert.equal(netlinkDropCount(table, new Set()), 0);
});

test('connections the kernel could not track are summed over the processors', () => {
  const table = `entries  clashres found new invalid ignore delete chainlength insert insert_failed drop early_drop icmp_error  expect_new expect_create expect_delete search_restart
00000007  00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000002 0000000a 00000000 00000000 00000000  00000000 00000000 00000000
00000007  00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000001 00000000 00000000 00000000  00000000 00000000 00000000
`;
  assert.equal(untrackedCount(table), 2 + 10 + 1);
  assert.equal(untrackedCount(''), 0);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatAddress, parseCidr, toMapped } from '../../lib/net/address.ts';
import { decodeFlowBatch } from '../../lib/wire/flow-batch.ts';
import { type BatchHead, encodeParts, encodeReports } from './batcher.ts';
import type { ConnectionReport } from './connections.ts';
import { excluder } from './exclude.ts';
import { OwnAddresses, parseCidrs } from './own-addresses.ts';

const head: BatchHead = {
  agentId: 'a',
  bootId: 'b',
  sequence: 7,
  cluster: '',
  node: 'n',
  network: 'local',
  sourceKind: 'procfs',
  observedFromMs: 1000,
  observedToMs: 3000,
  sourceDroppedCount: 4,
  clockOffsetMs: -120,
  clockErrorMs: 3,
};

function report(port: number, more: Partial<ConnectionReport['ends']> = {}): ConnectionReport {
  return {
    ends: {
      protocol: 6,
      source: '10.0.0.1',
      sourcePort: port,
      destination: '2001:db8::5',
      destinationPort: 443,
      original: null,
      flags: 0,
      ...more,
    },
    startMs: 900,
    endMs: 2900,
    bytesForward: 1,
    bytesReverse: 2,
    packetsForward: 3,
    packetsReverse: 4,
    connectionCount: 1,
    state: 'open',
    processName: 'curl',
    hints: { source: 'pod-uid', destination: '' },
  };
}

test('a report becomes a flow with times relative to the batch and its texts by index', () => {
  const own = new OwnAddresses([]);
  own.update(['10.0.0.1']);
  const original = { address: '10.96.0.1', port: 80 };
  const bytes = encodeReports(head, [report(1), report(2, { original })], (ends) => own.sideOf(ends));
  const batch = decodeFlowBatch(bytes);
  const [first, second] = batch.flows;
  assert.equal(batch.sequence, 7);
  assert.equal(batch.sourceDroppedCount, 4);
  assert.deepEqual([batch.clockOffsetMs, batch.clockErrorMs], [-120, 3]);
  assert.equal(first?.startMs, -100);
  assert.equal(first?.durationMs, 2000);
  assert.equal(first?.reporter, 'source');
  assert.equal(first?.sourceAddress.length, 4);
  assert.equal(first?.destinationAddress.length, 16);
  assert.equal(first?.originalDestinationAddress.length, 0);
  assert.equal(batch.strings[first?.processName ?? 0], 'curl');
  assert.equal(batch.strings[first?.sourceHint ?? 0], 'pod-uid');
  assert.equal(first?.destinationHint, 0);
  assert.equal(batch.strings.length, 3);
  assert.equal(formatAddress(toMapped(second?.originalDestinationAddress ?? new Uint8Array(4))), '10.96.0.1');
});

test('parts keep to the limits, in order, and nothing is an empty part', () => {
  const encode = (part: readonly ConnectionReport[]): Buffer => encodeReports(head, part, () => 'middle');
  const reports = Array.from({ length: 1000 }, (_, port) => report(port));
  const limits = { maxFlowsPerBatch: 300, maxBatchBytes: 8 * 1024 };
  const parts = encodeParts(reports, limits, encode, () => assert.fail('all fit'));
  const ports = parts.flatMap(({ bytes }) =>
    decodeFlowBatch(bytes).flows.map(({ sourcePort }) => sourcePort),
  );
  assert.deepEqual(
    ports,
    reports.map(({ ends }) => ends.sourcePort),
  );
  assert.ok(parts.every(({ flowCount, bytes }) => flowCount <= 300 && bytes.length <= 8 * 1024));
  assert.deepEqual(
    encodeParts([], limits, encode, () => undefined).map(({ flowCount }) => flowCount),
    [0],
  );
});

test('a report that fits no batch is told and spoils no other', () => {
  const unfit: number[] = [];
  const parts = encodeParts(
    [report(1), report(2, { source: 'nowhere' }), report(3), report(4, { protocol: 1e12 })],
    { maxFlowsPerBatch: 100, maxBatchBytes: 1e6 },
    (part) => encodeReports(head, part, () => 'middle'),
    ({ ends }) => unfit.push(ends.sourcePort),
  );
  assert.deepEqual(unfit, [2, 4]);
  const ports = parts.flatMap(({ bytes }) =>
    decodeFlowBatch(bytes).flows.map(({ sourcePort }) => sourcePort),
  );
  assert.deepEqual(ports, [1, 3]);
});

test('the side is that of the address: own, in a local block, or neither', () => {
  const block = parseCidr('10.244.3.0/24');
  assert.ok(block !== null);
  const own = new OwnAddresses([block]);
  own.update(['192.168.0.5', 'fe80::1%eth0', '2001:DB8:0:0::7']);
  const side = (source: string, destination: string) => own.sideOf(report(1, { source, destination }).ends);
  assert.equal(side('192.168.0.5', '1.1.1.1'), 'source');
  assert.equal(side('1.1.1.1', '2001:db8::7'), 'destination');
  assert.equal(side('1.1.1.1', '10.244.3.9'), 'destination');
  assert.equal(side('10.244.3.9', '1.1.1.1'), 'source');
  assert.equal(side('10.244.4.9', '1.1.1.1'), 'middle');
  assert.equal(side('127.0.0.1', '127.0.0.1'), 'source');
  assert.equal(own.isInterface('10.244.3.9'), false);
});

test('excluded ports and blocks are left out, before and after NAT', () => {
  const isExcluded = excluder({ excludePorts: [9000], excludeCidrs: ['172.16.0.0/12'] });
  assert.equal(isExcluded(report(1)), false);
  assert.equal(isExcluded(report(1, { destinationPort: 9000 })), true);
  assert.equal(isExcluded(report(9000)), false, 'a source port says nothing');
  assert.equal(isExcluded(report(1, { source: '172.20.1.1' })), true);
  assert.equal(isExcluded(report(1, { original: { address: '172.20.1.1', port: 80 } })), true);
  assert.throws(() => parseCidrs('agent.localCidrs', ['10.0.0.0/40']), /agent.localCidrs: '10.0.0.0\/40'/);
});

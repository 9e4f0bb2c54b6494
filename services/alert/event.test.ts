import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { End, NewEdge } from './edges.ts';
import { makeConnectionEvent, makeSummaryEvent, messageIdOf, severityOf } from './event.ts';

const end = (changes: Partial<End> = {}): End => ({
  identity: '7',
  kind: 'pod',
  cluster: 'east',
  namespace: 'pay',
  name: '',
  zone: 'inside',
  labels: { app: 'payments' },
  ...changes,
});

const edge = (changes: Partial<NewEdge> = {}): NewEdge => ({
  edge: '255',
  source: end(),
  destination: end({ kind: 'unknown', cluster: '', namespace: '', zone: '', labels: {} }),
  sourceAddress: '::',
  destinationAddress: '::ffff:203.0.113.9',
  port: 443,
  protocol: 6,
  reason: 'unknown-destination',
  reach: 2,
  firstSeenS: 1_700_000_000,
  lastSeenS: 1_700_000_005,
  writtenMs: 1_700_000_006_000,
  ...changes,
});

describe('an alert event', () => {
  it('is critical for a critical destination, else as severe as the edge goes far', () => {
    const critical = end({ labels: { criticality: 'Critical' } });
    assert.equal(severityOf(edge({ reach: 0, destination: critical })), 'critical');
    assert.deepEqual(
      ([2, 1, 0] as const).map((reach) => severityOf(edge({ reach }))),
      ['high', 'medium', 'low'],
    );
  });

  it('keeps its id for as long as the edge is the same', () => {
    assert.equal(messageIdOf('255'), 'msg_edge_00000000000000ff');
    assert.equal(messageIdOf('18446744073709551615'), 'msg_edge_ffffffffffffffff');
  });

  it('says who, where to, when and why in words, also without a sample of flows', () => {
    const { data } = makeConnectionEvent(edge(), null, 1_700_000_007_000, 'https://eastwest.example/');
    assert.equal(
      data.title,
      'payments (pay, east) connects to 203.0.113.9 on port 443/tcp, and no rule explains it',
    );
    assert.equal(data.source.address, '');
    assert.equal(data.destination.zone, 'unknown');
    assert.equal(data.firstSeen, '2023-11-14T22:13:20.000Z');
    assert.match(data.reason.text, /destination address belongs to no known workload/);
    const api = new URL(data.links.api);
    assert.equal(`${api.origin}${api.pathname}`, 'https://eastwest.example/api/v1/connections');
    assert.equal(api.searchParams.get('dst_identity'), '7');
  });

  it('sums up many edges with the most severe named first', () => {
    const edges = Array.from({ length: 50 }, (_, i) => edge({ edge: String(i), reach: i === 40 ? 2 : 1 }));
    const { data } = makeSummaryEvent(edges, 1_700_000_007_000, 'http://127.0.0.1:8080');
    assert.deepEqual([data.edges, data.bySeverity.high, data.bySeverity.medium], [50, 1, 49]);
    assert.equal(data.examples[0]?.edge, '40');
    assert.ok(data.examples.length < 50);
  });
});

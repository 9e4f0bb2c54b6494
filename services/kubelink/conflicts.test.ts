import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { WorkloadEvent } from '../../lib/inventory/events.ts';
import { AddressClaims } from './conflicts.ts';

function workload(name: string, network: string, ip: string, untilMs?: number): WorkloadEvent {
  const end = untilMs === undefined ? {} : { untilMs };
  return {
    v: 1,
    type: 'workload',
    kind: 'vm',
    cluster: '',
    uid: name,
    name,
    namespace: 'core',
    node: '',
    hostNetwork: false,
    labels: {},
    annotations: {},
    addresses: [{ ip, network, sinceMs: 1, ...end }],
    sinceMs: 1,
    ...end,
  };
}

test('two live workloads with one address in one network are named once, until one of them lets it go', () => {
  const claims = new AddressClaims();
  claims.follow('a', workload('a', 'default', '10.0.0.1'));
  assert.deepEqual(claims.settle(), []);
  claims.follow('b', workload('b', 'default', '10.0.0.1'));
  const conflict = { network: 'default', ip: '10.0.0.1', claimants: ['vm core/a', 'vm core/b'] };
  assert.deepEqual(claims.settle(), [conflict]);
  assert.deepEqual(claims.settle(), []);
  assert.deepEqual(claims.current(10), [conflict]);
  claims.follow('a', workload('a', 'default', '10.0.0.1', 5));
  assert.deepEqual(claims.settle(), []);
  assert.equal(claims.count, 0);
});

test('one address in two networks is no conflict', () => {
  const claims = new AddressClaims();
  claims.follow('a', workload('a', 'east', '10.0.0.1'));
  claims.follow('b', workload('b', 'west', '10.0.0.1'));
  assert.deepEqual(claims.settle(), []);
});

test('an address that moves within one reading is no conflict, whatever the order', () => {
  const claims = new AddressClaims();
  claims.follow('a', workload('a', 'default', '10.0.0.1'));
  claims.settle();
  claims.follow('b', workload('b', 'default', '10.0.0.1'));
  claims.follow('a', null);
  assert.deepEqual(claims.settle(), []);
});

test('a workload and a service of two sources that claim one address are both named', () => {
  const claims = new AddressClaims();
  claims.follow('a', workload('a', 'default', '10.0.0.1'));
  claims.follow('s', {
    v: 1,
    type: 'service',
    cluster: 'east',
    uid: 's',
    name: 'web',
    namespace: 'shop',
    labels: {},
    annotations: {},
    selector: {},
    addresses: [
      { ip: '10.0.0.1', network: 'default', sinceMs: 1 },
      { ip: '10.0.0.2', network: 'default', sinceMs: 1 },
    ],
    ports: [],
    sinceMs: 1,
  });
  assert.deepEqual(claims.settle(), [
    { network: 'default', ip: '10.0.0.1', claimants: ['service shop/web (east)', 'vm core/a'] },
  ]);
});

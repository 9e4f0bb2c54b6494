import assert from 'node:assert/strict';
import { mock, test } from 'node:test';
import type { InventoryEvent } from '../../schemas/inventory-event.ts';
import type { PolicyDocument } from '../../schemas/policy.ts';
import { emptyPolicy, PolicyEngine } from '../policy/engine.ts';
import { exportNetworkPolicies } from './networkpolicy.ts';
import { World } from './world.ts';

/** So many namespaces with an app each, which two others may reach. */
function worldOf(count: number): World {
  const numbers = Array.from({ length: count }, (_, i) => i);
  const events = numbers.map((i): InventoryEvent => {
    const labels = { app: `app-${i}` };
    return { v: 1, type: 'namespace', cluster: 'east', name: `ns-${i}`, labels, annotations: {} };
  });
  const document: PolicyDocument = {
    ...emptyPolicy,
    profiles: [
      { name: 'p', match: { namespace: ['ns-*'] }, map: [{ key: 'app', from: { namespaceLabel: 'app' } }] },
    ],
    rulesets: numbers.map((i) => ({
      name: `s-${i}`,
      rules: [3, 7].map((step) => ({
        name: `from-${step}`,
        from: [{ labels: { app: `app-${(i + step) % count}` } }],
        to: [{ labels: { app: `app-${i}` } }],
      })),
    })),
  };
  return new World(document, events, Date.UTC(2026, 0, 1));
}

/** Policies of all namespaces, with how often the engine was asked. */
function exported(count: number) {
  const world = worldOf(count);
  const asked = mock.method(PolicyEngine.prototype, 'evaluate');
  const told: string[] = [];
  try {
    const options = { cluster: 'east', namespaces: world.namespaces('east'), networks: [] };
    const { policies } = exportNetworkPolicies(world, options, (done, of) => told.push(`${done}/${of}`));
    return { policies, askedCount: asked.mock.callCount(), told };
  } finally {
    asked.mock.restore();
  }
}

test('twice the namespaces cost twice the questions, not four times as many', () => {
  const [once, twice] = [exported(20), exported(40)];
  // One that closes, two for what comes in and two for what goes out.
  assert.deepEqual([once.policies.length, twice.policies.length], [20 * 5, 40 * 5]);
  assert.ok(once.askedCount > 0);
  assert.ok(twice.askedCount < once.askedCount * 2.5, `${once.askedCount} and ${twice.askedCount}`);
});

test('an export tells how far it is, namespace by namespace', () => {
  assert.deepEqual(exported(3).told, ['1/3', '2/3', '3/3']);
});

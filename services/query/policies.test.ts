import assert from 'node:assert/strict';
import { describe, type Mock, mock, test } from 'node:test';
import type { Bus, BusMessage, TailOptions } from '../../lib/bus/bus.ts';
import { emptyPolicy, PolicyEngine } from '../../lib/policy/engine.ts';
import type { PolicyDocument } from '../../schemas/policy.ts';
import { followPolicies } from './policies.ts';

const never = new AbortController().signal;

function version(number: number, ruleCount = 1): PolicyDocument {
  const rules = Array.from({ length: ruleCount }, (_, i) => ({
    name: `r${i}`,
    from: [{ labels: { app: `a${i % 50}`, role: `r${i}` } }],
    to: [{ labels: { app: `b${i % 70}`, role: `s${i}` } }],
  }));
  return { ...emptyPolicy, version: number, appliedMs: number * 1000, rulesets: [{ name: 's', rules }] };
}

function messageOf(document: PolicyDocument): BusMessage {
  const value = Buffer.from(JSON.stringify(document));
  return { offset: document.version, timestampMs: 0, key: `policy/${document.version}`, value, headers: {} };
}

/** A bus whose topic holds these versions; `later` appends one. */
function busOf(...documents: PolicyDocument[]): { bus: Bus; later(document: PolicyDocument): void } {
  let tail: TailOptions | undefined;
  const fake: Pick<Bus, 'tail' | 'close'> = {
    async tail(options) {
      tail = options;
      await options.onMessages(0, documents.map(messageOf));
      options.onCaughtUp();
      return { close: async () => undefined };
    },
    close: async () => undefined,
  };
  return {
    bus: fake as Bus,
    later: (document) => void tail?.onMessages(0, [messageOf(document)]),
  };
}

/** How often policies were compiled while `work` ran, and its versions. */
async function compiledIn(work: (calls: Mock<typeof PolicyEngine.compile>) => Promise<void>): Promise<void> {
  const calls = mock.method(PolicyEngine, 'compile');
  try {
    await work(calls);
  } finally {
    calls.mock.restore();
  }
}

const versions = (calls: Mock<typeof PolicyEngine.compile>): number[] =>
  calls.mock.calls.map((call) => call.arguments[0].version);

describe('the policy in force', () => {
  test('is compiled before anybody asks, and again when another comes into force', () =>
    compiledIn(async (calls) => {
      const { bus, later } = busOf(version(1), version(2));
      const policies = followPolicies({ open: async () => bus, onError: assert.fail });
      await new Promise((resolve) => setImmediate(resolve));
      assert.deepEqual(versions(calls), [2]);
      assert.equal((await policies.at(Date.now(), never)).engine.version, 2);
      later(version(3));
      assert.deepEqual(versions(calls), [2, 3]);
      assert.equal((await policies.at(Date.now(), never)).engine.version, 3);
      assert.deepEqual(versions(calls), [2, 3]);
      await policies.close();
    }));

  test('lets other requests on while it is compiled, once for all who wait for it', () =>
    compiledIn(async (calls) => {
      const { bus } = busOf(version(1, 10_000));
      const policies = followPolicies({ open: async () => bus, onError: assert.fail });
      let turns = 0;
      let isWaiting = true;
      const turn = (): void => {
        turns++;
        if (isWaiting) setImmediate(turn);
      };
      setImmediate(turn);
      const spans = await Promise.all([policies.at(Date.now(), never), policies.at(Date.now(), never)]);
      isWaiting = false;
      assert.ok(turns >= 3, `${turns} turns of the event loop`);
      assert.equal(spans[0].engine, spans[1].engine);
      assert.equal(calls.mock.callCount(), 1);
      await policies.close();
    }));
});

/** The engine against the plain reading of the same policy. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseAddress } from '../lib/net/address.ts';
import { breadthOf, covers, type Names } from '../lib/policy/covers.ts';
import { PolicyEngine, reasonCodeOf, ruleOf, verdictCodeOf } from '../lib/policy/engine.ts';
import { labelGroupsOf } from '../lib/policy/match.ts';
import { type ReferenceFlow, type ReferenceVerdict, referenceVerdict } from '../lib/policy/reference.ts';
import { reasons, verdicts } from '../schemas/closed-lists.ts';
import type { PolicyDocument } from '../schemas/policy.ts';
import { flowsAmong, flowTimeMs, policies } from './support/policies.ts';

const policyCount = 5000;
const flowsPerPolicy = 25;

/** Verdicts of the engine, each end by the index of the first that is the same. */
function engineVerdicts(engine: PolicyEngine, flows: readonly ReferenceFlow[]): ReferenceVerdict[] {
  const identities = [...new Set(flows.flatMap(({ source, destination }) => [source, destination]))];
  const blockSet = (address: string): number => engine.blockSet(parseAddress(address)!, 0);
  return flows.map(({ source, destination, port, protocol, process }) => {
    const packed = engine.verdict(
      identities,
      identities.indexOf(source),
      blockSet(source.address),
      identities.indexOf(destination),
      blockSet(destination.address),
      port,
      protocol,
      engine.processClass(process),
    );
    const compiled = engine.rules[ruleOf(packed)];
    return {
      verdict: verdicts[verdictCodeOf(packed)]!,
      reason: reasons[reasonCodeOf(packed)]!,
      rule: compiled === undefined ? '' : `${compiled.ruleset.name}/${compiled.rule.name}`,
    };
  });
}

test('compiled rules say of 125,000 flows what reading the policy aloud says, on a miss and on a hit of the memo', (t) => {
  const seed = Date.now() % 2 ** 31;
  t.diagnostic(`seed ${seed}`);
  const seen = new Map<string, number>();
  let comparisons = 0;
  const compare = (policy: PolicyDocument, flowList: readonly ReferenceFlow[]): void => {
    const engine = new PolicyEngine(policy, flowTimeMs);
    const expected = flowList.map((flow) => referenceVerdict(policy, flowTimeMs, flow));
    for (const pass of ['miss', 'hit']) assert.deepEqual(engineVerdicts(engine, flowList), expected, pass);
    for (const { verdict, reason, rule } of expected) {
      comparisons++;
      const kind = rule.startsWith('boundaries/') ? 'boundary' : `${verdict} ${reason}`;
      seen.set(kind, (seen.get(kind) ?? 0) + 1);
    }
  };
  fc.assert(fc.property(policies, flowsAmong(flowsPerPolicy), compare), { numRuns: policyCount, seed });
  t.diagnostic(`${comparisons} flows: ${[...seen].map(([kind, count]) => `${count} ${kind}`).join(', ')}`);
  assert.ok(comparisons >= 100_000);
  for (const kind of [
    'allowed rule',
    'denied rule',
    'boundary',
    'unexplained no-rule',
    'unexplained outside-scope',
    'unexplained port-not-covered',
    'unexplained unknown-source',
    'unexplained unknown-destination',
  ])
    assert.ok(
      (seen.get(kind) ?? 0) > 500,
      `only ${seen.get(kind) ?? 0} flows are ${kind}: the test sees too little`,
    );
});

test('compiling in slices, with identities met in advance, gives the same engine', async () => {
  const seed = Date.now() % 2 ** 31;
  await fc.assert(
    fc.asyncProperty(policies, flowsAmong(5), async (policy, flowList) => {
      const identities = [...new Set(flowList.flatMap(({ source, destination }) => [source, destination]))];
      const sliced = await PolicyEngine.compile(policy, flowTimeMs, identities);
      const whole = new PolicyEngine(policy, flowTimeMs);
      assert.deepEqual(engineVerdicts(sliced, flowList), engineVerdicts(whole, flowList));
    }),
    { numRuns: 300, seed },
  );
});

test('a rule that is said to cover another matches every flow that the other matches', (t) => {
  const seed = Date.now() % 2 ** 31;
  let covering = 0;
  let matching = 0;
  const compare = (policy: PolicyDocument, flowList: readonly ReferenceFlow[]): void => {
    const names: Names = {
      groups: labelGroupsOf(policy.labelGroups),
      ipLists: new Map(policy.ipLists.map((list) => [list.name, list])),
      services: new Map(policy.services.map(({ name, ports }) => [name, ports])),
    };
    const rules = policy.rulesets.flatMap((ruleset) =>
      ruleset.rules.map(({ expires: _, enabled: __, ...rule }) => {
        const alone: PolicyDocument = {
          ...policy,
          boundaries: [],
          rulesets: [{ ...ruleset, enabled: true, rules: [{ ...rule, action: 'allow' }] }],
        };
        const matches = (flow: ReferenceFlow) =>
          referenceVerdict(alone, flowTimeMs, flow).verdict === 'allowed';
        return { breadth: breadthOf(rule, ruleset, names), matches };
      }),
    );
    for (const outer of rules) {
      for (const inner of rules) {
        if (outer === inner || !covers(outer.breadth, inner.breadth)) continue;
        covering++;
        for (const flow of flowList) {
          if (!inner.matches(flow)) continue;
          matching++;
          assert.ok(outer.matches(flow), JSON.stringify(flow));
        }
      }
    }
  };
  fc.assert(fc.property(policies, flowsAmong(15), compare), {
    numRuns: 1000,
    seed,
  });
  t.diagnostic(`seed ${seed}: ${covering} pairs, ${matching} flows that the inner rule matches`);
  assert.ok(matching > 500);
});

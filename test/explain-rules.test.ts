/** Explanations of generated policies: the rules they say match are those that the plain reading of the policy says do. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Explainer } from '../lib/policy/explain.ts';
import { Judge } from '../lib/policy/explain-verdict.ts';
import { type ReferenceEnd, type ReferenceFlow, referenceVerdict } from '../lib/policy/reference.ts';
import { PolicyTimeline } from '../lib/policy/timeline.ts';
import type { PolicyDocument, Rule, Ruleset } from '../schemas/policy.ts';
import { flowsAmong, flowTimeMs, policies } from './support/policies.ts';

const end = ({ address, ...identity }: ReferenceEnd) => ({ identity, address });
const asked = ({ port, protocol, process }: ReferenceFlow) => ({ port, protocol, process });

function rulesOf(document: PolicyDocument): { ruleset: Ruleset; rule: Rule }[] {
  const boundaries: Ruleset = {
    name: 'boundaries',
    rules: (document.boundaries ?? []).map((one) => ({ ...one, action: 'deny' })),
  };
  return [...document.rulesets, boundaries].flatMap((ruleset) =>
    ruleset.rules.map((rule) => ({ ruleset, rule })),
  );
}

/** Whether a rule, alone in the policy, decides. */
function matchesAlone(document: PolicyDocument, ruleset: Ruleset, rule: Rule, of: ReferenceFlow): boolean {
  const alone = { ...document, rulesets: [{ ...ruleset, rules: [rule] }], boundaries: [] };
  return referenceVerdict(alone, flowTimeMs, of).verdict !== 'unexplained';
}

test('the rules that an explanation names are those that match, and what it says is missing is missing', () => {
  let matched = 0;
  let near = 0;
  fc.assert(
    fc.property(policies, flowsAmong(8), (document, flows) => {
      const timeline = new PolicyTimeline();
      timeline.add({ ...document, version: 1, appliedMs: 0 });
      const judge = new Judge(timeline.at(flowTimeMs));
      const explainer = new Explainer(document, flowTimeMs);
      const rules = rulesOf(document);
      for (const one of flows) {
        const [source, destination] = [end(one.source), end(one.destination)];
        const wanted = referenceVerdict(document, flowTimeMs, one);
        const found = judge.explain(source, destination, asked(one));
        assert.deepEqual([found.verdict, found.reason], [wanted.verdict, wanted.reason]);
        assert.equal(found.rule === null ? '' : `${found.rule.ruleset}/${found.rule.rule}`, wanted.rule);
        const alone = rules
          .filter(({ ruleset, rule }) => matchesAlone(document, ruleset, rule, one))
          .map(({ ruleset, rule }) => `${ruleset.name}/${rule.name}`);
        const paths = explainer.matching(source, destination, asked(one));
        assert.deepEqual(paths.map(({ ruleset, rule }) => `${ruleset}/${rule}`).sort(), alone.sort());
        matched += paths.length;
        for (const { ruleset, rule, gaps } of explainer.near(source, destination, asked(one), 100)) {
          near++;
          assert.ok(!alone.includes(`${ruleset}/${rule}`), `${ruleset}/${rule} matches`);
          assert.ok(gaps.length > 0);
          const of = rules.find(
            (candidate) => candidate.ruleset.name === ruleset && candidate.rule.name === rule,
          );
          assert.ok(of !== undefined);
          // What only lacks being in force matches once it is.
          if (gaps.every(({ kind }) => kind === 'disabled' || kind === 'expired')) {
            const { expires: _expires, enabled: _enabled, ...revived } = of.rule;
            const { enabled: _also, ...live } = of.ruleset;
            assert.ok(matchesAlone(document, live, revived, one), `${ruleset}/${rule} lacks more`);
          }
          // What only lacks the port matches on every port.
          if (gaps.every(({ kind }) => kind === 'port')) {
            const { services: _services, ...open } = of.rule;
            assert.ok(
              matchesAlone(document, of.ruleset, open, one),
              `${ruleset}/${rule} lacks more than the port`,
            );
          }
        }
      }
    }),
    { numRuns: 400 },
  );
  assert.ok(matched > 200 && near > 200, `${matched} matched, ${near} came near`);
});

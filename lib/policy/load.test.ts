import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { readPolicy } from './load.ts';

const good = `
ipLists:
  - { name: partners, cidrs: [203.0.113.0/24, '!203.0.113.9'] }
services:
  - { name: web, ports: [{ port: 443 }, { port: 8000-8080 }] }
rulesets:
  - name: payments
    scope: [{ app: payments }]
    rules:
      - name: to-partners
        from: [{ labels: { role: api } }]
        to: [{ ipList: partners }]
        services: [web]
        ticket: NET-1
        expires: 2030-01-01
`;

function problems(text: string, more: Record<string, string> = {}): string[] {
  const result = readPolicy(new Map([['rules.yaml', text], ...Object.entries(more)]));
  assert.equal(result.ok, false, 'the policy was taken');
  return result.ok ? [] : result.problems.map(({ file, line, message }) => `${file}:${line} ${message}`);
}

test('several files are one policy', () => {
  const result = readPolicy(
    new Map([
      ['a.yaml', good],
      ['b.yaml', 'profiles: [{ name: all, match: {}, assign: { env: prod } }]'],
      ['empty.yaml', ''],
    ]),
  );
  assert.ok(result.ok);
  assert.equal(result.policy.rulesets[0]?.rules.length, 1);
  assert.equal(result.policy.profiles[0]?.name, 'all');
});

test('all errors of all files are reported at once', () => {
  const list = problems(good.replace('203.0.113.0/24', '203.0.113.0/40').replace('2030-01-01', 'soon'), {
    'more.yaml': 'services:\n  - { name: web, ports: [{ port: 9-3 }] }\n',
    'broken.yaml': 'rulesets: [\n',
  });
  assert.equal(list.length, 5);
  assert.match(list.join('\n'), /rules.yaml:3 "203.0.113.0\/40" is no address or CIDR/);
  assert.match(list.join('\n'), /rules.yaml:15 "soon" is no date/);
  assert.match(list.join('\n'), /more.yaml:2 "web" is defined already in rules.yaml services\[0\]/);
  assert.match(list.join('\n'), /more.yaml:2 9-3 is no range of ports/);
  assert.match(list.join('\n'), /broken.yaml/);
});

test('two rules of one name in one ruleset are refused', () => {
  const twice = `${good}      - { name: to-partners, from: [{ any: true }], to: [{ any: true }] }\n`;
  assert.match(problems(twice).join('\n'), /ruleset payments has a rule "to-partners" already/);
});

test('the example in docs/policy.md is a policy', () => {
  const page = readFileSync(new URL('../../docs/policy.md', import.meta.url), 'utf8');
  const example = /```yaml\n([\s\S]*?)```/.exec(page)?.[1] ?? '';
  const result = readPolicy(new Map([['docs/policy.md', example]]));
  assert.deepEqual(result.ok ? [] : result.problems, []);
  assert.ok(result.ok && result.policy.rulesets[0]?.rules.length === 3);
  assert.deepEqual(result.warnings, []);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeMatcher } from './matcher.ts';
import { readRules } from './read.ts';
import { type EdgeRow, hitsOf, Tally } from './tally.ts';

const csv = `source,destination,port,action
10.0.0.0/8,any,443/tcp,deny
any,any,any,deny
`;

function edge(i: number, side: string, connections: number): EdgeRow {
  const [src_ip, dst_ip] = [`::ffff:10.0.0.${i % 200}`, `::ffff:192.0.2.${i % 100}`];
  const sums = { flows: '1', connections: String(connections), bytes_forward: String(connections * 7) };
  const ids = { src_identity: String(i), dst_identity: '9', dst_port: i % 2 === 0 ? 443 : 80, protocol: 6 };
  return { ...ids, src_ip, dst_ip, side, ...sums, bytes_reverse: '3', first_s: i, last_s: i + 1 };
}

test('hits are the same whether edges are held to the end or settled page by page, and then none is held', () => {
  const { rules } = readRules(csv, {});
  assert.equal(rules.length, 2);
  const matcher = makeMatcher(rules);
  const [whole, paged] = [new Tally(rules, matcher, 'first'), new Tally(rules, matcher, 'first')];
  for (let page = 0; page < 10; page++) {
    for (let i = page * 20; i < page * 20 + 20; i++)
      // Both sides of an edge: the larger one counts.
      for (const row of [edge(i, 'source', i + 1), edge(i, 'destination', i % 3), edge(i, 'source', 2)])
        for (const tally of [whole, paged]) {
          const decision = tally.decide(row);
          assert.notEqual(decision, 'unclear');
          if (decision !== 'unclear') tally.addEdge(row, decision);
        }
    paged.settle();
    assert.deepEqual(
      paged.rules.map(({ edges }) => edges.size),
      [0, 0],
    );
  }
  assert.equal(hitsOf(whole.rules[0] ?? assert.fail()).connections, 100 * 102);
  assert.deepEqual(paged.rules.map(hitsOf), whole.rules.map(hitsOf));
});

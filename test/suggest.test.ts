/**
 * The demo bank, through ingest and enricher into a real ClickHouse: rules are suggested for what is unexplained, and the
 * truth of every flow says whether they are right.
 */
import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { Document } from 'yaml';
import { type Suggestions, suggest } from '../lib/suggest/suggest.ts';
import { checkSuggestions, suggestionsYaml } from '../lib/suggest/yaml.ts';
import type { PolicyDocument } from '../schemas/policy.ts';
import { readUnexplained } from '../services/query/sql/drafting.ts';
import { buildScene, runCommand } from './support/query-scene.ts';
import { openSuggestScene, type SuggestScene, type TrueEdge } from './support/suggest-scene.ts';

const flowCount = 40_000;
const leastExplained = 0.99;
let scene: SuggestScene;
let folder: string;

before(async () => {
  scene = await openSuggestScene(flowCount);
  folder = await mkdtemp(join(tmpdir(), 'eastwest-suggest-'));
});

after(async () => {
  await scene?.close();
  if (folder !== undefined) await rm(folder, { recursive: true, force: true });
});

async function suggestFor(document: PolicyDocument): Promise<Suggestions> {
  const { drafted, edges } = await readUnexplained(scene.asked, document);
  return suggest({
    document,
    identities: drafted.identities.list,
    edges,
    windowS: 1800,
    nowMs: scene.asked.nowMs,
  });
}

/** The policy with a file of suggestions beside it, read as `rules check` reads a folder. */
function withFile(document: PolicyDocument, yaml: string): PolicyDocument {
  const checked = checkSuggestions(yaml, document);
  assert.ok(checked.ok, checked.ok ? '' : JSON.stringify(checked.problems, null, 1));
  return { ...document, ...checked.policy };
}

const sumOf = (edges: readonly TrueEdge[]): number =>
  edges.reduce((sum, { connections }) => sum + connections, 0);

/** Share of the connections of some edges that are not unexplained. */
function explainedShare(edges: readonly TrueEdge[], unexplained: ReadonlySet<string>): number {
  return 1 - sumOf(edges.filter(({ key }) => unexplained.has(key))) / sumOf(edges);
}

/** The bank's policy without the rules that its application teams wrote. */
function withoutApplications(document: PolicyDocument): PolicyDocument {
  const common = new Set(['platform', 'datacentre', 'boundaries']);
  return { ...document, rulesets: document.rulesets.filter(({ name }) => common.has(name)) };
}

const gain = { since: '2026-01-01T00:00:00Z', before: null, after: null };

async function assertRight(document: PolicyDocument, context: { diagnostic(text: string): void }) {
  const suggestions = await suggestFor(document);
  const widened = withFile(document, suggestionsYaml(suggestions, gain));
  const [before, after] = [await scene.unexplainedBy(document), await scene.unexplainedBy(widened)];
  const planted = scene.edges.filter(({ planted }) => planted !== null);
  assert.equal(new Set(planted.map((edge) => edge.planted?.id)).size, scene.estate.planted.length);
  for (const edge of planted) assert.ok(after.has(edge.key), `${edge.planted?.id} is explained`);
  // Whatever a rule forbids stays forbidden, and what was explained stays so.
  for (const { key } of scene.edges) assert.ok(before.has(key) || !after.has(key));
  const explained = scene.edges.filter(({ truth }) => truth.verdict === 'allowed');
  const [was, is] = [explainedShare(scene.edges, before), explainedShare(scene.edges, after)];
  const [truly, trulyNow] = [explainedShare(explained, before), explainedShare(explained, after)];
  const percent = (share: number): string => `${(share * 100).toFixed(2)} %`;
  context.diagnostic(
    `${suggestions.rules.length} rules, ${suggestions.review.length} under review; coverage ${percent(was)} -> ${percent(is)}, of what truth explains ${percent(truly)} -> ${percent(trulyNow)}`,
  );
  assert.ok(was < 1 && is > was);
  assert.ok(trulyNow >= leastExplained, percent(trulyNow));
  return { suggestions, trulyBefore: truly, after };
}

test('the demo bank as it is: coverage rises, and no planted connection is explained', async (context) => {
  await assertRight(scene.estate.policy(), context);
});

test('without any rule of an application team, suggestions explain 99 % of what truth explains, and nothing planted', async (context) => {
  const { suggestions, trulyBefore } = await assertRight(withoutApplications(scene.estate.policy()), context);
  assert.ok(trulyBefore < 0.8);
  // Fewer rules than the teams wrote for the same.
  const written = scene.estate.policy().rulesets.reduce((sum, { rules }) => sum + rules.length, 0);
  assert.ok(suggestions.rules.length < written, `${suggestions.rules.length} rules for ${written}`);
});

test('every planted connection is under review, with a reason', async () => {
  const { review } = await suggestFor(scene.estate.policy());
  for (const { id, port, source } of scene.estate.planted) {
    const found = review.find(({ edges }) =>
      edges.some((edge) => edge.port === port && edge.source.kind === source.kind),
    );
    assert.ok(found !== undefined && found.reasons.length > 0, id);
  }
});

test('evidence of each rule adds up to what the policy explains with it', async () => {
  const document = scene.estate.policy();
  const suggestions = await suggestFor(document);
  const [before, after] = [
    await scene.unexplainedBy(document),
    await scene.unexplainedBy(withFile(document, suggestionsYaml(suggestions, gain))),
  ];
  const gained = sumOf(scene.edges.filter(({ key }) => before.has(key) && !after.has(key)));
  assert.equal(
    suggestions.rules.reduce((sum, { evidence }) => sum + evidence.connections, 0),
    gained,
  );
  for (const { opens, confidence, rule } of suggestions.rules) {
    assert.ok(opens.seenPairs > 0 && opens.seenPairs <= opens.allowedPairs, rule.name);
    assert.ok(confidence.score > 0 && confidence.score <= 1, rule.name);
  }
});

test('the same edges give the same file', async () => {
  const document = withoutApplications(scene.estate.policy());
  const [one, two] = [await suggestFor(document), await suggestFor(document)];
  assert.equal(suggestionsYaml(one, gain), suggestionsYaml(two, gain));
});

test('`eastwest suggest` writes a file that passes `rules check` beside the policy, for one application too', async () => {
  const { clickhouse, store } = scene;
  const config = clickhouse.config();
  const app = await buildScene(
    {},
    { url: clickhouse.url, database: config.database, ...config.reader },
    store,
  );
  try {
    const url = await app.listen({ host: '127.0.0.1', port: 0 });
    const policy = join(folder, 'policy');
    await mkdir(policy);
    const { v: _, version: __, author: ___, appliedMs: ____, ...content } = scene.estate.policy();
    await writeFile(join(policy, 'bank.yaml'), new Document(content).toString());
    const [edge] = scene.edges.filter(
      ({ truth, planted }) =>
        planted === null && truth.verdict === 'unexplained' && truth.dstLabels.role === 'api',
    );
    const wanted = edge?.truth.dstLabels.app ?? '';
    const file = join(policy, 'suggested.yaml');
    const { code, stdout, stderr } = await runCommand(
      ['suggest', '--policy', policy, '--app', wanted, '--since', '2h', '-o', file],
      { EASTWEST_URL: url },
    );
    assert.equal(code, 0, stderr);
    assert.match(stdout, new RegExp(`${wanted}-callers-suggested/`));
    const text = await readFile(file, 'utf8');
    assert.match(text, /connections, .* workloads or addresses/);
    const checked = await runCommand(['rules', 'check', policy], {});
    assert.equal(checked.code, 0, checked.stdout);
    const drafted = await runCommand(
      ['draft', policy, '--since', '2h', '--fail-on', 'new-unexplained,new-denied'],
      { EASTWEST_URL: url },
    );
    assert.equal(drafted.code, 0, drafted.stdout + drafted.stderr);
    assert.match(drafted.stdout, /newly explained/);
  } finally {
    await app.close();
  }
});

/** POST /api/v1/suggestions: rules for what no rule explains, as YAML for a pull request. */
import type { FastifyInstance } from 'fastify';
import Type, { type Static } from 'typebox';
import { type ReviewItem, type SuggestedRule, suggest } from '../../../lib/suggest/suggest.ts';
import { type ReviewReason, reviewReasons } from '../../../lib/suggest/suspicion.ts';
import { suggestionsYaml } from '../../../lib/suggest/yaml.ts';
import { IpList, type PolicyDocument, Rule, Ruleset } from '../../../schemas/policy.ts';
import { Completeness, WindowAnswer, windowAnswer } from '../answers.ts';
import type { RouteContext } from '../context.ts';
import { windowFilter } from '../filters.ts';
import { toWindow } from '../parameters.ts';
import type { Policies } from '../policies.ts';
import { ProblemError } from '../problem.ts';
import { protocolName } from '../protocols.ts';
import { evaluateDraft, readUnexplained } from '../sql/drafting.ts';
import { planEdges } from '../sql/plan.ts';
import { isoSeconds } from '../time.ts';
import { coverageOf, DraftEnd, makeGate, PolicyFiles, postedPolicy } from './drafts.ts';
import { bodyLimitOf, clientSignal, routeSchema } from './route.ts';

/** Items under review, and edges of each, that an answer lists. */
const maxReviewItems = 1_000;
const maxReviewEdges = 10;

const SuggestionBody = Type.Object(
  {
    files: Type.Optional(PolicyFiles),
    since: Type.Optional(Type.String({ description: 'Begin of the window: 24h, 7d, ISO 8601.' })),
    until: Type.Optional(Type.String({ description: 'End of the window, exclusive; open when absent.' })),
    app: Type.Optional(
      Type.String({ minLength: 1, description: 'Only edges one end of which has this label app.' }),
    ),
  },
  { additionalProperties: false },
);

const share = Type.Union([Type.Number(), Type.Null()]);
const Shares = Type.Object({ connections: share, bytes: share, edges: share });
const EvidenceAnswer = Type.Object({
  connections: Type.Integer(),
  bytes: Type.Integer(),
  edges: Type.Integer(),
  sourceWorkloads: Type.Integer({ description: 'Distinct workloads or addresses that were seen, at least.' }),
  destinationWorkloads: Type.Integer(),
  firstSeen: Type.String(),
  lastSeen: Type.String(),
});
const SuggestedAnswer = Type.Object({
  ruleset: Type.String(),
  rule: Rule,
  evidence: EvidenceAnswer,
  coverageGained: share,
  confidence: Type.Object({
    score: Type.Number({ description: '0 to 1, from how often, how long, and the share of pairs seen.' }),
    level: Type.Enum(['high', 'medium', 'low']),
  }),
  opens: Type.Object({
    allowedPairs: Type.Integer({ description: 'Pairs of identities that the rule lets talk.' }),
    seenPairs: Type.Integer(),
    examples: Type.Array(Type.Object({ source: DraftEnd, destination: DraftEnd }), {
      description: 'Pairs that it would open and that were never seen.',
    }),
  }),
});
const reasonNames = Object.keys(reviewReasons).filter((name): name is ReviewReason => name in reviewReasons);
const ReviewAnswer = Type.Object({
  reasons: Type.Array(Type.Object({ reason: Type.Enum(reasonNames), why: Type.String() })),
  evidence: EvidenceAnswer,
  edges: Type.Array(
    Type.Object({
      source: DraftEnd,
      destination: DraftEnd,
      port: Type.Integer(),
      protocol: Type.String(),
      dns: Type.Union([Type.String(), Type.Null()]),
      connections: Type.Integer(),
    }),
    { description: `The busiest, ${maxReviewEdges} at most.` },
  ),
});
const SuggestionAnswer = Type.Object({
  rules: Type.Array(SuggestedAnswer),
  rulesets: Type.Array(Ruleset),
  ipLists: Type.Array(IpList),
  review: Type.Array(ReviewAnswer, { description: 'What looks odd: no rule is suggested for it.' }),
  reviewTotal: Type.Integer(),
  before: Shares,
  after: Shares,
  policy: Type.Integer({ description: 'Version of the policy in force; 0 where one was posted.' }),
  yaml: Type.String({ description: 'One file for the policy folder.' }),
  window: WindowAnswer,
  table: Type.String(),
  completeness: Completeness,
});
type SuggestionAnswer = Static<typeof SuggestionAnswer>;

function evidenceAnswer({ evidence }: Pick<SuggestedRule, 'evidence'>): Static<typeof EvidenceAnswer> {
  const { connections, bytes, edges, sourceWorkloads, destinationWorkloads, firstS, lastS } = evidence;
  return {
    connections,
    bytes,
    edges,
    sourceWorkloads,
    destinationWorkloads,
    firstSeen: isoSeconds(firstS),
    lastSeen: isoSeconds(lastS),
  };
}

type EndIdentity = SuggestedRule['opens']['examples'][number]['source'];

function endAnswer(identity: EndIdentity, address: string | null): Static<typeof DraftEnd> {
  const { id, kind, cluster, namespace, name, zone, labels } = identity;
  return { identity: id, kind, cluster, namespace, name, zone, address, labels };
}

function suggestedAnswer(suggested: SuggestedRule, total: number): Static<typeof SuggestedAnswer> {
  const { ruleset, rule, confidence, opens, evidence } = suggested;
  return {
    ruleset,
    rule,
    evidence: evidenceAnswer(suggested),
    coverageGained: total === 0 ? null : evidence.connections / total,
    confidence,
    opens: {
      allowedPairs: opens.allowedPairs,
      seenPairs: opens.seenPairs,
      examples: opens.examples.map(({ source, destination }) => ({
        source: endAnswer(source, null),
        destination: endAnswer(destination, null),
      })),
    },
  };
}

function reviewAnswer(item: ReviewItem): Static<typeof ReviewAnswer> {
  return {
    reasons: item.reasons.map((reason) => ({ reason, why: reviewReasons[reason] })),
    evidence: evidenceAnswer(item),
    edges: item.edges.slice(0, maxReviewEdges).map((edge) => ({
      source: endAnswer(edge.source, edge.sourceAddress),
      destination: endAnswer(edge.destination, edge.destinationAddress),
      port: edge.port,
      protocol: protocolName(edge.protocol),
      dns: edge.dns[0] ?? null,
      connections: edge.connections,
    })),
  };
}

async function policyFor(
  body: Static<typeof SuggestionBody>,
  policies: Policies | undefined,
  nowMs: number,
  signal: AbortSignal,
): Promise<PolicyDocument> {
  if (body.files !== undefined) return postedPolicy('files', body.files).document;
  if (policies === undefined)
    throw new ProblemError(
      'bus-unavailable',
      'this process does not know the policy in force: post it as `files`',
    );
  return (await policies.at(nowMs, signal)).document;
}

export function suggestionRoutes(
  app: FastifyInstance,
  context: RouteContext,
  policies: Policies | undefined,
): void {
  const gate = makeGate('suggestions');
  const schema = routeSchema({
    tag: 'rules',
    summary: 'Rules for what no rule explains',
    description:
      'From the edges that the policy in force (or the posted one) leaves unexplained. What looks odd is listed under review instead. Changes nothing.',
    body: SuggestionBody,
    answer: SuggestionAnswer,
  });
  app.post<{ Body: Static<typeof SuggestionBody> }>(
    '/api/v1/suggestions',
    { schema, ...bodyLimitOf(context.config.maxPolicyBytes, 'query.maxPolicyBytes') },
    (request, reply): Promise<SuggestionAnswer> =>
      gate(async () => {
        const { body } = request;
        const clock = context.clock();
        const signal = clientSignal(reply);
        const document = await policyFor(body, policies, clock.nowMs, signal);
        const filter = {
          ...windowFilter(toWindow(body, clock)),
          either: body.app === undefined ? [] : [{ key: 'app', negated: false, values: [body.app] }],
        };
        const plan = planEdges(filter, clock.nowMs, context.kept);
        const asked = { context, filter, plan, nowMs: clock.nowMs, signal };
        const [{ drafted, edges }, completeness] = await Promise.all([
          readUnexplained(asked, document),
          context.completeness(plan.window, signal),
        ]);
        const { sinceS, untilS } = plan.window;
        const suggestions = suggest({
          document,
          identities: drafted.identities.list,
          edges,
          windowS: (untilS ?? clock.nowMs / 1000) - sinceS,
          nowMs: clock.nowMs,
        });
        const widened = {
          ...document,
          ipLists: [...document.ipLists, ...suggestions.ipLists],
          rulesets: [...document.rulesets, ...suggestions.rulesets],
        };
        const after = await evaluateDraft(asked, { draft: widened, against: null, limit: 0 });
        const [was, is] = [coverageOf(drafted.result.after), coverageOf(after.result.after)];
        const total =
          was.allowed.connections +
          was.denied.connections +
          was.unexplained.connections +
          was.undecided.connections;
        return {
          rules: suggestions.rules.map((suggested) => suggestedAnswer(suggested, total)),
          rulesets: [...suggestions.rulesets],
          ipLists: [...suggestions.ipLists],
          review: suggestions.review.slice(0, maxReviewItems).map(reviewAnswer),
          reviewTotal: suggestions.review.length,
          before: was.coverage,
          after: is.coverage,
          policy: document.version,
          yaml: suggestionsYaml(suggestions, {
            since: isoSeconds(sinceS),
            before: was.coverage.connections,
            after: is.coverage.connections,
          }),
          window: windowAnswer(plan.window),
          table: `${plan.table}+flows`,
          completeness,
        };
      }),
  );
}

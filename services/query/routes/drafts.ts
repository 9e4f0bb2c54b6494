/** POST /api/v1/drafts: what a policy would change of what was seen. */
import type { FastifyInstance } from 'fastify';
import Type, { type Static } from 'typebox';
import { type ChangedEdge, type ChangeKind, changeKinds, type Totals } from '../../../lib/draft/draft.ts';
import type { EdgeRow, IdentityIndex } from '../../../lib/draft/edges.ts';
import type { Judge } from '../../../lib/draft/judge.ts';
import { emptyPolicy } from '../../../lib/policy/engine.ts';
import { type LoadResult, readPolicy } from '../../../lib/policy/load.ts';
import { verdicts } from '../../../schemas/closed-lists.ts';
import type { PolicyDocument } from '../../../schemas/policy.ts';
import { addressText, Completeness, WindowAnswer, windowAnswer } from '../answers.ts';
import type { RouteContext } from '../context.ts';
import { windowFilter } from '../filters.ts';
import { toWindow } from '../parameters.ts';
import { ProblemError } from '../problem.ts';
import { protocolName } from '../protocols.ts';
import { allRuleNamesSql } from '../sql/draft.ts';
import { type Drafted, evaluateDraft } from '../sql/drafting.ts';
import { planEdges } from '../sql/plan.ts';
import { isoSeconds } from '../time.ts';
import { bodyLimitOf, clientSignal, routeSchema } from './route.ts';

/** Drafts at once: each reads a whole window. */
const maxConcurrent = 2;
/** Problems of a policy that an answer repeats. */
const maxProblemsTold = 20;

export const PolicyFiles = Type.Record(Type.String({ minLength: 1, maxLength: 1024 }), Type.String(), {
  minProperties: 1,
  maxProperties: 10_000,
  description: 'The YAML files of a whole policy: name to text.',
});

const DraftBody = Type.Object(
  {
    files: PolicyFiles,
    against: Type.Optional(PolicyFiles),
    since: Type.Optional(Type.String({ description: 'Begin of the window: 7d, 24h, ISO 8601.' })),
    until: Type.Optional(Type.String({ description: 'End of the window, exclusive; open when absent.' })),
    app: Type.Optional(
      Type.String({ minLength: 1, description: 'Only edges one end of which has this label app.' }),
    ),
    limit: Type.Optional(
      Type.Integer({
        minimum: 0,
        maximum: 10_000,
        description: 'Edges listed of each kind; 100 when absent.',
      }),
    ),
  },
  { additionalProperties: false },
);

const TotalsAnswer = Type.Object({
  connections: Type.Integer(),
  bytes: Type.Integer(),
  edges: Type.Integer(),
});
const share = Type.Union([Type.Number(), Type.Null()]);
const CoverageAnswer = Type.Object({
  coverage: Type.Object({ connections: share, bytes: share, edges: share }),
  allowed: TotalsAnswer,
  denied: TotalsAnswer,
  unexplained: TotalsAnswer,
  undecided: TotalsAnswer,
});
const RuleName = Type.Object({ ruleset: Type.String(), name: Type.String() });
const Said = Type.Object({
  verdict: Type.Enum([...verdicts]),
  rule: Type.Union([RuleName, Type.Null()]),
});
export const DraftEnd = Type.Object({
  identity: Type.String(),
  kind: Type.String(),
  cluster: Type.String(),
  namespace: Type.String(),
  name: Type.String(),
  zone: Type.String(),
  address: Type.Union([Type.String(), Type.Null()]),
  labels: Type.Record(Type.String(), Type.String()),
});
const ChangedAnswer = Type.Object({
  source: DraftEnd,
  destination: DraftEnd,
  port: Type.Integer(),
  protocol: Type.String(),
  before: Said,
  after: Said,
  connections: Type.Integer(),
  bytes: Type.Integer(),
  firstSeen: Type.String(),
  lastSeen: Type.String(),
});
const ChangesAnswer = Type.Object({ total: TotalsAnswer, edges: Type.Array(ChangedAnswer) });

const DraftAnswer = Type.Object({
  before: CoverageAnswer,
  after: CoverageAnswer,
  newlyExplained: ChangesAnswer,
  newlyDenied: ChangesAnswer,
  newlyUnexplained: ChangesAnswer,
  otherRule: TotalsAnswer,
  ruleCount: Type.Integer(),
  unusedRules: Type.Array(RuleName, { description: 'Rules of the draft that decided nothing.' }),
  edgesFromFlows: Type.Integer({
    description: 'Edges that rollups could not decide: a rule asks for addresses, processes or names.',
  }),
  comparedWith: Type.Enum(['stored verdicts', 'posted policy']),
  warnings: Type.Array(Type.String(), { description: 'What the check of the draft warned of.' }),
  window: WindowAnswer,
  table: Type.String(),
  completeness: Completeness,
});
type DraftAnswer = Static<typeof DraftAnswer>;

function problemText({ problems }: Extract<LoadResult, { ok: false }>): string {
  const told = problems
    .slice(0, maxProblemsTold)
    .map(({ file, line, column, at, message }) => `${file}:${line}:${column} ${at}: ${message}`);
  const rest = problems.length - told.length;
  return [...told, ...(rest === 0 ? [] : [`and ${rest} more`])].join('\n');
}

/** A posted policy as a document. @throws {ProblemError} where its check fails. */
export function postedPolicy(
  field: string,
  files: Readonly<Record<string, string>>,
): { readonly document: PolicyDocument; readonly warnings: readonly string[] } {
  const loaded = readPolicy(new Map(Object.entries(files)));
  if (!loaded.ok)
    throw new ProblemError('bad-body', `the policy is wrong:\n${problemText(loaded)}`, { parameter: field });
  return {
    document: { ...emptyPolicy, ...loaded.policy },
    warnings: loaded.warnings.map(
      ({ file, line, column, at, message }) => `${file}:${line}:${column} ${at}: ${message}`,
    ),
  };
}

/** Runs few questions at once; one more is refused. */
export function makeGate(what: string): <T>(work: () => Promise<T>) => Promise<T> {
  let running = 0;
  return async (work) => {
    if (running >= maxConcurrent)
      throw new ProblemError('too-many-queries', `${running} ${what} are under way already`, {
        retryAfterSeconds: 2,
      });
    running++;
    try {
      return await work();
    } finally {
      running--;
    }
  };
}

const whole = ({ connections, bytes, edges }: Totals): Totals => ({ connections, bytes, edges });

export function coverageOf(coverage: Drafted['result']['before']): DraftAnswer['before'] {
  const { allowed, denied, unexplained, undecided } = coverage;
  const shareOf = (what: keyof Totals): number | null => {
    const explained = allowed[what] + denied[what];
    const all = explained + unexplained[what] + undecided[what];
    return all === 0 ? null : explained / all;
  };
  return {
    coverage: { connections: shareOf('connections'), bytes: shareOf('bytes'), edges: shareOf('edges') },
    allowed: whole(allowed),
    denied: whole(denied),
    unexplained: whole(unexplained),
    undecided: whole(undecided),
  };
}

function endOf(identities: IdentityIndex, id: string, ip: string): Static<typeof DraftEnd> {
  const { kind, cluster, namespace, name, zone, labels } = identities.of(id);
  return { identity: id, kind, cluster, namespace, name, zone, address: addressText(ip), labels };
}

type RuleNames = ReadonlyMap<string, { readonly ruleset: string; readonly name: string }>;

/** Names of rules by id: of those that were stored, and of judges. */
async function readRuleNames(
  context: Pick<RouteContext, 'ask'>,
  judges: readonly (Judge | null)[],
  signal: AbortSignal,
): Promise<RuleNames> {
  const rows = await context.ask<{ id: string; ruleset_name: string; rule_name: string }>(
    allRuleNamesSql,
    signal,
  );
  const names = new Map(
    rows.map(({ id, ruleset_name, rule_name }) => [id, { ruleset: ruleset_name, name: rule_name }]),
  );
  for (const judge of judges) {
    judge?.rules.forEach(({ ruleset, rule }, i) => {
      names.set(judge.idOf(i), { ruleset: ruleset.name, name: rule.name });
    });
  }
  return names;
}

function changedAnswer(
  { edge, before, after, connections, bytes, firstS, lastS }: ChangedEdge,
  identities: IdentityIndex,
  names: RuleNames,
): Static<typeof ChangedAnswer> {
  const said = ({ verdict, rule }: ChangedEdge['before']): Static<typeof Said> => ({
    verdict: verdicts[verdict] ?? 'unexplained',
    rule: names.get(rule) ?? null,
  });
  const { source, sourceIp, destination, destinationIp, port, protocol }: EdgeRow = edge;
  return {
    source: endOf(identities, source, sourceIp),
    destination: endOf(identities, destination, destinationIp),
    port,
    protocol: protocolName(protocol),
    before: said(before),
    after: said(after),
    connections,
    bytes,
    firstSeen: isoSeconds(firstS),
    lastSeen: isoSeconds(lastS),
  };
}

function draftAnswer(drafted: Drafted, names: RuleNames) {
  const { result, draft, identities } = drafted;
  const changes = Object.fromEntries(
    changeKinds.map((kind) => [
      kind,
      {
        total: whole(result.changes[kind]),
        edges: result.changed[kind].map((edge) => changedAnswer(edge, identities, names)),
      },
    ]),
  ) as Record<ChangeKind, Static<typeof ChangesAnswer>>;
  return {
    before: coverageOf(result.before),
    after: coverageOf(result.after),
    newlyExplained: changes.explained,
    newlyDenied: changes.denied,
    newlyUnexplained: changes.unexplained,
    otherRule: whole(result.otherRule),
    ruleCount: draft.rules.length,
    unusedRules: result.unusedRules.flatMap((index) => names.get(draft.idOf(index)) ?? []),
    edgesFromFlows: result.edgesFromFlows,
  };
}

export function draftRoutes(app: FastifyInstance, context: RouteContext): void {
  const gate = makeGate('drafts');
  const schema = routeSchema({
    tag: 'rules',
    summary: 'What a policy would change of what was seen',
    description:
      'Judges the stored edges of a window by the posted policy, and compares with the verdicts that were stored, or with another posted policy. Changes nothing.',
    body: DraftBody,
    answer: DraftAnswer,
  });
  app.post<{ Body: Static<typeof DraftBody> }>(
    '/api/v1/drafts',
    { schema, ...bodyLimitOf(context.config.maxPolicyBytes, 'query.maxPolicyBytes') },
    (request, reply): Promise<DraftAnswer> =>
      gate(async () => {
        const { body } = request;
        const clock = context.clock();
        const signal = clientSignal(reply);
        const { document, warnings } = postedPolicy('files', body.files);
        const against = body.against === undefined ? null : postedPolicy('against', body.against).document;
        const filter = {
          ...windowFilter(toWindow(body, clock)),
          either: body.app === undefined ? [] : [{ key: 'app', negated: false, values: [body.app] }],
        };
        const plan = planEdges(filter, clock.nowMs, context.kept);
        const asked = { context, filter, plan, nowMs: clock.nowMs, signal };
        const [drafted, completeness] = await Promise.all([
          evaluateDraft(asked, { draft: document, against, limit: body.limit ?? 100 }),
          context.completeness(plan.window, signal),
        ]);
        const names = await readRuleNames(context, [drafted.draft, drafted.against], signal);
        return {
          ...draftAnswer(drafted, names),
          comparedWith: against === null ? 'stored verdicts' : 'posted policy',
          warnings: [...warnings],
          window: windowAnswer(plan.window),
          table: drafted.result.edgesFromFlows === 0 ? plan.table : `${plan.table}+flows`,
          completeness,
        };
      }),
  );
}

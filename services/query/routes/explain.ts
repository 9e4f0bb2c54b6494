/** GET /api/v1/explain: why a connection is allowed, denied or unexplained, and what is missing. */
import type { FastifyInstance } from 'fastify';
import Type, { type Static } from 'typebox';
import { type ExplainedEnd, gapKinds } from '../../../lib/policy/explain.ts';
import type { JudgedPort } from '../../../lib/policy/explain-fit.ts';
import { Judge } from '../../../lib/policy/explain-verdict.ts';
import type { PolicySpan } from '../../../lib/policy/timeline.ts';
import { reasons, verdicts } from '../../../schemas/closed-lists.ts';
import type { RouteContext } from '../context.ts';
import { AskedEnd, Ends, explainedEnd } from '../ends.ts';
import type { Policies } from '../policies.ts';
import { parsePort, portForms } from '../ports.ts';
import { badParameter, ProblemError } from '../problem.ts';
import { parseTimeMs, timeForms } from '../time.ts';
import { clientSignal, parameters, routeSchema } from './route.ts';

const endForms =
  'a workload (name, namespace/name, cluster/namespace/name or uid), labels (app=payments,role=api), an address, or a DNS name';
const end = (which: string) =>
  Type.String({ minLength: 1, maxLength: 4096, description: `The ${which}: ${endForms}.` });
const nullable = (description: string) => Type.Union([Type.String(), Type.Null()], { description });

const ExplainParameters = parameters({
  source: end('source'),
  destination: end('destination'),
  port: Type.String({ minLength: 1, maxLength: 64, description: `The destination port: ${portForms}.` }),
  process: Type.Optional(
    Type.String({
      minLength: 1,
      maxLength: 256,
      description: "Name of the process on the reporter's side, for rules that ask for one.",
    }),
  ),
  at: Type.Optional(
    Type.String({ minLength: 1, maxLength: 64, description: `When; now when absent: ${timeForms}.` }),
  ),
});

const Entry = Type.Object({
  index: Type.Integer({ description: 'Place in its list, from 0.' }),
  text: Type.String({ description: 'As people write it.' }),
});
const ruleName = {
  id: Type.String(),
  ruleset: Type.String({ description: 'boundaries for those.' }),
  rule: Type.String(),
  action: Type.String(),
  owner: Type.String(),
  ticket: Type.String(),
  expires: nullable('From when on it explains nothing.'),
};
const RulePath = Type.Object({
  ...ruleName,
  scope: Type.Union([Type.Array(Entry), Type.Null()], {
    description: 'Entries of the scope that hold an end; null where the ruleset speaks of everything.',
  }),
  from: Entry,
  to: Entry,
  service: nullable('Name of the service that matched; null for ports in place.'),
  ports: Type.String(),
});
const NearRule = Type.Object({
  ...ruleName,
  distance: Type.Number({ description: 'Lower is nearer.' }),
  gaps: Type.Array(Type.Object({ kind: Type.Enum([...gapKinds]), text: Type.String() }), {
    description: 'What is missing, each in words.',
  }),
});
const judged = {
  verdict: Type.Enum([...verdicts]),
  reason: Type.Enum([...reasons]),
};
const pair = {
  source: Type.Integer({ description: 'Index of the candidate.' }),
  destination: Type.Integer({ description: 'Index of the candidate.' }),
};
const ExplainAnswer = Type.Object({
  at: Type.String(),
  source: AskedEnd,
  destination: AskedEnd,
  port: Type.Integer({ description: 'For ICMP type * 256 + code.' }),
  protocol: Type.String(),
  process: nullable('As asked.'),
  policy: Type.Object({
    version: Type.Integer({ description: '0 where none was in force.' }),
    author: Type.String(),
    applied: nullable('When it took effect; null for none.'),
    isOldest: Type.Boolean({
      description: 'Whether it took effect only after that time, but is the oldest that is kept.',
    }),
  }),
  ...judged,
  pair: Type.Object(pair, { description: 'The candidates that this speaks of, the likeliest.' }),
  rule: Type.Union([RulePath, Type.Null()], {
    description: 'The rule that decides, and the way through it.',
  }),
  also: Type.Array(RulePath, { description: 'Rules that match too and decide nothing.' }),
  near: Type.Array(NearRule, {
    description: 'Rules that come near, the nearest first; none where a rule allows it.',
  }),
  hint: Type.Union([
    Type.Object({
      text: Type.String({ description: 'What would have to be.' }),
      yaml: nullable('A rule that would explain it, for a policy folder.'),
    }),
    Type.Null(),
  ]),
  outcomes: Type.Array(
    Type.Object({
      ...judged,
      rule: Type.Union([Type.Object({ ruleset: Type.String(), rule: Type.String() }), Type.Null()]),
      pairs: Type.Integer({ description: 'Pairs of candidates that get this.' }),
      ...pair,
    }),
    { description: 'What any pair of candidates gets: more than one where it depends on who is meant.' },
  ),
});
type ExplainAnswer = Static<typeof ExplainAnswer>;

/** Judges of the spans that were asked about last. */
class Judges {
  #recent: { readonly engine: PolicySpan['engine']; readonly judge: Judge }[] = [];
  readonly #limit = 4;

  of(span: PolicySpan): Judge {
    const known = this.#recent.find((one) => one.engine === span.engine);
    if (known !== undefined) return known.judge;
    const judge = new Judge(span);
    this.#recent = [{ engine: span.engine, judge }, ...this.#recent].slice(0, this.#limit);
    return judge;
  }
}

type Outcome = ExplainAnswer['outcomes'][number] & { readonly ruleId: string | null };

/** What each pair of candidates gets, the likeliest pair first; pairs with one outcome are one. */
function outcomesOf(
  judge: Judge,
  sources: readonly ExplainedEnd[],
  destinations: readonly ExplainedEnd[],
  asked: JudgedPort,
): Outcome[] {
  const outcomes = new Map<string, Outcome>();
  for (const [source, from] of sources.entries()) {
    for (const [destination, to] of destinations.entries()) {
      const { verdict, reason, ruleId } = judge.judge(from, to, asked);
      const key = [verdict, reason, ruleId].join(' ');
      const known = outcomes.get(key);
      if (known !== undefined) known.pairs++;
      else outcomes.set(key, { verdict, reason, ruleId, rule: null, pairs: 1, source, destination });
    }
  }
  return [...outcomes.values()];
}

interface Asked extends JudgedPort {
  readonly protocolName: string;
}

function answerOf(judge: Judge, source: AskedEnd, destination: AskedEnd, asked: Asked) {
  const sources = source.candidates.map(explainedEnd);
  const destinations = destination.candidates.map(explainedEnd);
  const outcomes = outcomesOf(judge, sources, destinations, asked);
  const explained = outcomes.map((outcome) => {
    const [from, to] = [sources[outcome.source], destinations[outcome.destination]];
    if (from === undefined || to === undefined) throw new RangeError('a pair has both of its ends');
    return { outcome, explanation: judge.explain(from, to, asked) };
  });
  const [first] = explained;
  if (first === undefined) throw new RangeError('each end has a candidate');
  const { verdict, reason, rule, also, near, hint } = first.explanation;
  return {
    verdict,
    reason,
    pair: { source: first.outcome.source, destination: first.outcome.destination },
    rule,
    also: [...also],
    near: near.map((one) => ({ ...one, gaps: [...one.gaps] })),
    hint,
    outcomes: explained.map(({ outcome: { ruleId: _id, ...outcome }, explanation }) => ({
      ...outcome,
      rule:
        explanation.rule === null ? null : { ruleset: explanation.rule.ruleset, rule: explanation.rule.rule },
    })),
  };
}

export function explainRoutes(
  app: FastifyInstance,
  context: RouteContext,
  policies: Policies | undefined,
): void {
  const judges = new Judges();
  const schema = routeSchema({
    tag: 'policy',
    summary: 'Why a connection is allowed, denied or unexplained',
    description:
      'Judged by the policy that was in force at that time, for those who the ends were then. Says which rule decides and how, or which rules come near and what is missing in each.',
    querystring: ExplainParameters,
    answer: ExplainAnswer,
  });
  app.get<{ Querystring: Static<typeof ExplainParameters> }>(
    '/api/v1/explain',
    { schema },
    async (request, reply) => {
      const { query } = request;
      if (policies === undefined) throw new ProblemError('bus-unavailable', 'this process has no bus');
      const { nowMs } = context.clock();
      const atMs = query.at === undefined ? nowMs : parseTimeMs(query.at, nowMs);
      if (atMs === null) throw badParameter('at', query.at ?? '', timeForms);
      const asked = parsePort(query.port);
      if (asked === null) throw badParameter('port', query.port, portForms);
      const late = AbortSignal.timeout(context.config.maxSeconds * 1000);
      const signal = AbortSignal.any([clientSignal(reply), late]);
      const span = await policies.at(atMs, signal);
      const { document } = span;
      const ends = new Ends(context, signal);
      const [source, destination] = await Promise.all([
        ends.resolve('source', query.source, { atMs, document }),
        ends.resolve('destination', query.destination, { atMs, document }),
      ]);
      const port = { ...asked, process: query.process ?? '' };
      const judge = judges.of(span);
      await judge.prepare();
      return {
        at: new Date(atMs).toISOString(),
        source,
        destination,
        port: asked.port,
        protocol: asked.protocolName,
        process: query.process ?? null,
        policy: {
          version: document.version,
          author: document.author,
          applied: document.version === 0 ? null : new Date(document.appliedMs).toISOString(),
          isOldest: document.version > 0 && document.appliedMs > atMs,
        },
        ...answerOf(judge, source, destination, port),
      };
    },
  );
}

/** GET /api/v1/labels/explain. */
import type { FastifyInstance } from 'fastify';
import Type, { type Static } from 'typebox';
import type { Bus } from '../../../lib/bus/bus.ts';
import { emptyPolicy } from '../../../lib/policy/engine.ts';
import { ProfileSet, sourceText } from '../../../lib/policy/profiles.ts';
import { currentPolicy } from '../../../lib/policy/publish.ts';
import type { PolicyDocument } from '../../../schemas/policy.ts';
import { type FoundWorkload, findWorkloads, theOneMeant, toQuestion } from '../inventory-topic.ts';
import { ProblemError } from '../problem.ts';
import { clientSignal, parameters, routeSchema } from './route.ts';

/** Questions at once at most: each reads the topic `inventory`. */
const maxConcurrent = 2;
/** Workloads that an answer lists at most where several are meant. */
const maxListed = 100;

const ExplainParameters = parameters({
  workload: Type.String({
    minLength: 1,
    maxLength: 1024,
    description: 'name, namespace/name, cluster/namespace/name, uid or address.',
  }),
});

const Subject = Type.Object({
  kind: Type.String(),
  cluster: Type.String(),
  namespace: Type.String(),
  name: Type.String(),
  uid: Type.String(),
  addresses: Type.Array(Type.String(), { description: 'Addresses it has, or had at last.' }),
  current: Type.Boolean({ description: 'Whether it is there now, and has the address that was asked for.' }),
});

const ExplainAnswer = Type.Object({
  workload: Type.Union([Subject, Type.Null()], {
    description: 'The one that is explained; null where none or several are meant.',
  }),
  labels: Type.Array(
    Type.Object({
      key: Type.String(),
      value: Type.String(),
      from: Type.Enum(['profile', 'annotation', 'mapping', 'default', 'inventory']),
      source: Type.String({ description: 'The same in words, with names.' }),
    }),
    { description: 'Labels that new flows get, each with its source.' },
  ),
  refused: Type.Array(Type.Object({ name: Type.String(), value: Type.String(), reason: Type.String() }), {
    description: 'Annotations (and labels) that were not obeyed, and why.',
  }),
  notes: Type.Array(Type.String(), { description: 'Why a mapping gave nothing.' }),
  profile: Type.Union([Type.String(), Type.Null()], { description: 'The profile in use; null for none.' }),
  managed: Type.Boolean({ description: 'False where the profile says that it gets no labels.' }),
  otherProfiles: Type.Array(Type.String(), { description: 'Profiles that match too, but come later.' }),
  policy: Type.Integer({ description: 'Version of the policy; 0 where none is in force.' }),
  matches: Type.Array(Subject, {
    description: 'Every workload that the word may mean, the present ones first.',
  }),
  total: Type.Integer({ description: 'How many those are.' }),
});
type ExplainAnswer = Static<typeof ExplainAnswer>;

function subjectOf({ event, current }: FoundWorkload): Static<typeof Subject> {
  const held = event.addresses.filter(({ untilMs }) => untilMs === undefined);
  return {
    kind: event.type === 'service' ? 'service' : event.kind,
    cluster: event.cluster,
    namespace: event.namespace,
    name: event.name,
    uid: event.uid,
    addresses: (held.length > 0 ? held : event.addresses).map(({ ip }) => ip),
    current,
  };
}

type Explanation = Omit<ExplainAnswer, 'matches' | 'total'>;

function explain(found: FoundWorkload, policy: PolicyDocument): Explanation {
  const set = new ProfileSet(policy.profiles);
  const workload = subjectOf(found);
  const { labels, annotations } = found.event;
  const result = set.explain({ ...workload, labels, annotations }, found.namespaceLabels);
  return {
    workload,
    labels: Object.entries(result.labels).flatMap(([key, value]) => {
      const source = result.sources[key];
      if (source === undefined) return [];
      return [{ key, value, from: source.from, source: sourceText(source, result.profile) }];
    }),
    refused: [...result.refused],
    notes: [...result.notes],
    profile: result.profile,
    managed: result.managed,
    otherProfiles: set.matching(workload).flatMap(({ name }, i) => (i === 0 ? [] : [name])),
    policy: policy.version,
  };
}

function unclear(policy: PolicyDocument): Explanation {
  return {
    workload: null,
    labels: [],
    refused: [],
    notes: [],
    profile: null,
    managed: true,
    otherProfiles: [],
    policy: policy.version,
  };
}

/** Works with a bus that is opened for it, and closed after it. */
export type WithBus = <T>(work: (bus: Bus) => Promise<T>) => Promise<T>;

export interface LabelRouteOptions {
  /** Absent where there is no bus to read. */
  readonly withBus: WithBus | undefined;
  /** Longest time for one question, seconds. */
  readonly maxSeconds: number;
}

function unavailable(error: unknown): ProblemError {
  const reason = error instanceof Error ? error.message : String(error);
  return new ProblemError('bus-unavailable', `the inventory can't be read from the bus: ${reason}`, {
    retryAfterSeconds: 2,
  });
}

export function labelRoutes(app: FastifyInstance, { withBus, maxSeconds }: LabelRouteOptions): void {
  let running = 0;
  const schema = routeSchema({
    tag: 'labels',
    summary: 'Which labels a workload gets, and from where',
    description:
      'Labels by the policy in force now, as flows get them from now on; flows that were written keep theirs until `eastwest relabel`.',
    querystring: ExplainParameters,
    answer: ExplainAnswer,
  });
  const ask = async (word: string, signal: AbortSignal): Promise<ExplainAnswer> => {
    if (withBus === undefined) throw new ProblemError('bus-unavailable', 'this process has no bus');
    const question = toQuestion(word);
    const { found, policy } = await withBus(async (bus) => ({
      found: await findWorkloads(bus, question, signal),
      policy: (await currentPolicy(bus)) ?? emptyPolicy,
    })).catch((error: unknown) => {
      throw unavailable(error);
    });
    const one = theOneMeant(found);
    return {
      ...(one === null ? unclear(policy) : explain(one, policy)),
      matches: found.workloads.slice(0, maxListed).map(subjectOf),
      total: found.workloads.length,
    };
  };
  app.get<{ Querystring: Static<typeof ExplainParameters> }>(
    '/api/v1/labels/explain',
    { schema },
    async (request, reply): Promise<ExplainAnswer> => {
      if (running >= maxConcurrent)
        throw new ProblemError('too-many-queries', `${running} such questions are under way already`, {
          retryAfterSeconds: 1,
        });
      running++;
      try {
        const late = AbortSignal.timeout(maxSeconds * 1000);
        return await ask(request.query.workload, AbortSignal.any([clientSignal(reply), late]));
      } finally {
        running--;
      }
    },
  );
}

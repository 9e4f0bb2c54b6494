/** GET /api/v1/networkpolicy/opinion. */
import type { FastifyInstance } from 'fastify';
import Type, { type Static } from 'typebox';
import { Compile } from 'typebox/compile';
import type { Bus } from '../../../lib/bus/bus.ts';
import { formatAddress, parseAddress } from '../../../lib/net/address.ts';
import { selectorOfLabels } from '../../../lib/networkpolicy/engine.ts';
import { type EstateEnd, PolicyEstate, protocolOf } from '../../../lib/networkpolicy/estate.ts';
import { selectorMeets } from '../../../lib/networkpolicy/model.ts';
import type { Opinion } from '../../../lib/networkpolicy/opinion.ts';
import { InventoryEvent, type ServiceEvent, type WorkloadEvent } from '../../../schemas/inventory-event.ts';
import type { InventoryQuestions } from '../inventory-questions.ts';
import { findWorkloads, parsed, readInventory, theOneMeant, toQuestion } from '../inventory-topic.ts';
import { badParameter } from '../problem.ts';
import { clientSignal, parameters, routeSchema } from './route.ts';

/** Pods behind a service that an answer looks at. */
const maxBackends = 100;

const inventoryEvent = Compile(InventoryEvent);

const OpinionParameters = parameters({
  source: Type.String({
    minLength: 1,
    maxLength: 1024,
    description: 'name, namespace/name, cluster/namespace/name, uid or address.',
  }),
  destination: Type.String({ minLength: 1, maxLength: 1024, description: 'The same, or a service.' }),
  port: Type.String({
    minLength: 1,
    maxLength: 64,
    description: 'Destination port, with a protocol if it is not TCP: 5432, 53/udp, icmp.',
  }),
});

const DirectionAnswer = Type.Object({
  direction: Type.Enum(['egress', 'ingress']),
  allowed: Type.Boolean(),
  reason: Type.Enum(['no-pod', 'host-network', 'itself', 'own-node', 'not-isolated', 'rule', 'no-rule']),
  why: Type.String({ description: 'One sentence.' }),
  policies: Type.Array(Type.String(), {
    description: 'Policies that isolate the pod in this direction, as namespace/name.',
  }),
  rules: Type.Array(
    Type.Object({
      namespace: Type.String(),
      policy: Type.String(),
      rule: Type.String({ description: 'ingress[0]' }),
      ports: Type.String({ description: 'What it opens to the other end: TCP 443.' }),
    }),
    { description: 'Rules that let it through; where none does, those that would on other ports.' },
  ),
});

const Pair = Type.Object({
  source: Type.String(),
  destination: Type.String(),
  port: Type.String({ description: 'Port of the pod: behind a service it may be another.' }),
  allowed: Type.Boolean(),
  why: Type.String({ description: 'What decides, in one sentence.' }),
  egress: DirectionAnswer,
  ingress: DirectionAnswer,
  remarks: Type.Array(Type.String(), {
    description: 'Where Kubernetes leaves open what happens, or something is not known.',
  }),
});

const OpinionAnswer = Type.Object({
  allowed: Type.Union([Type.Boolean(), Type.Null()], {
    description:
      'Whether Kubernetes would allow it; null where some pods of a service are reached and others not.',
  }),
  why: Type.String(),
  pairs: Type.Array(Pair, { description: 'One, or one for each pod behind a service.' }),
  problems: Type.Array(Type.String(), { description: 'Policies that can not be read and were left out.' }),
});
type OpinionAnswer = Static<typeof OpinionAnswer>;

/** Newest events by key, of those whose key is wanted. */
async function readTopic(
  bus: Bus,
  wanted: (key: string) => boolean,
  signal: AbortSignal,
): Promise<InventoryEvent[]> {
  const found = new Map<string, Uint8Array>();
  await readInventory(bus, signal, (messages) => {
    for (const { key, value } of messages) {
      if (key === null || !wanted(key)) continue;
      if (value === null) found.delete(key);
      else found.set(key, value);
    }
  });
  return [...found.values()].flatMap((value) => {
    const event = parsed(value);
    return inventoryEvent.Check(event) && !('untilMs' in event && event.untilMs !== undefined) ? [event] : [];
  });
}

interface AskedPort {
  readonly port: number;
  readonly protocol: string;
}

function portOf(text: string): AskedPort {
  const forms = 'a port such as 5432, 53/udp, or icmp';
  const [number = '', protocol = 'tcp'] = text.toLowerCase().split('/');
  if (number === 'icmp' || number === 'icmpv6') return { port: 0, protocol: number };
  const port = Number(number);
  if (!/^\d{1,5}$/.test(number) || port < 1 || port > 65535 || protocolOf(protocol) === null)
    throw badParameter('port', text, forms);
  return { port, protocol };
}

type Target = { readonly event: WorkloadEvent | ServiceEvent } | { readonly address: Uint8Array };

async function targetOf(bus: Bus, which: string, word: string, signal: AbortSignal): Promise<Target> {
  const found = await findWorkloads(bus, toQuestion(word), signal);
  const one = theOneMeant(found);
  if (one?.current === true) {
    if (which === 'source' && one.event.type === 'service')
      throw badParameter(which, word, 'a workload or an address: services begin no connections');
    return { event: one.event };
  }
  const address = parseAddress(word);
  if (address !== null && found.workloads.every(({ current }) => !current)) return { address };
  if (found.workloads.length === 0)
    throw badParameter(
      which,
      word,
      'a workload of the inventory, or an address',
      ', which nothing is called',
    );
  throw badParameter(
    which,
    word,
    'one workload that is there now: cluster/namespace/name, or a uid',
    `, which ${found.workloads.length} workloads are or were called`,
  );
}

interface Backend {
  readonly end: EstateEnd;
  readonly name: string;
  readonly port: number;
}

/** The pods that a connection to a service may reach, with the port that each has for it. */
function backendsOf(
  estate: PolicyEstate,
  service: ServiceEvent,
  pods: readonly WorkloadEvent[],
  { port, protocol }: AskedPort,
): Backend[] {
  const asked = service.ports.find((one) => one.port === port && one.protocol.toLowerCase() === protocol);
  if (asked === undefined) return [];
  const selector = selectorOfLabels(service.selector);
  return pods
    .filter(
      (pod) => pod.kind === 'pod' && pod.cluster === service.cluster && pod.namespace === service.namespace,
    )
    .filter((pod) => selector.length > 0 && selectorMeets(selector, pod.labels))
    .flatMap((pod): Backend[] => {
      const target = asked.targetPort ?? port;
      const number =
        typeof target === 'number' ? target : (pod.ports ?? []).find(({ name }) => name === target)?.port;
      if (number === undefined) return [];
      return [{ end: estate.endOfWorkload(pod), name: nameOf(pod), port: number }];
    })
    .slice(0, maxBackends);
}

const nameOf = ({ cluster, namespace, name }: WorkloadEvent | ServiceEvent): string =>
  [cluster, namespace, name].filter((part) => part !== '').join('/');

/** Keys that policies of one cluster and the nodes of pods need. */
function neededKeys(targets: readonly Target[]): (key: string) => boolean {
  const events = targets.flatMap((target) => ('event' in target ? [target.event] : []));
  const clusters = new Set(events.map(({ cluster }) => cluster));
  const services = events
    .filter(({ type }) => type === 'service')
    .map(({ cluster }) => `workload/${cluster}/pod/`);
  return (key) => {
    const [type = '', cluster = '', kind = ''] = key.split('/', 3);
    if (!clusters.has(cluster)) return false;
    if (type === 'namespace' || type === 'network-policy') return true;
    return type === 'workload' && (kind === 'node' || services.some((prefix) => key.startsWith(prefix)));
  };
}

function opinionsOf(
  targets: readonly [source: Target, destination: Target],
  events: readonly InventoryEvent[],
  asked: AskedPort,
): OpinionAnswer {
  const estate = new PolicyEstate(events);
  const [source, destination] = targets;
  const endOf = (target: Target): Backend[] => {
    if ('address' in target)
      return [
        { end: estate.endOfAddress(target.address), name: formatAddress(target.address), port: asked.port },
      ];
    if (target.event.type === 'workload')
      return [{ end: estate.endOfWorkload(target.event), name: nameOf(target.event), port: asked.port }];
    const pods = events.filter((event) => event.type === 'workload');
    return backendsOf(estate, target.event, pods, asked);
  };
  const protocol = protocolOf(asked.protocol);
  const [from] = endOf(source);
  const pairs = endOf(destination).flatMap((to) => {
    if (from === undefined) return [];
    const opinion: Opinion = estate.opinion(from.end, to.end, to.port, protocol);
    const { allowed, why, egress, ingress, remarks } = opinion;
    const port = protocol === null ? asked.protocol : `${to.port}/${asked.protocol}`;
    return [
      {
        source: from.name,
        destination: to.name,
        port,
        allowed,
        why,
        egress: { ...egress, policies: [...egress.policies], rules: [...egress.rules] },
        ingress: { ...ingress, policies: [...ingress.policies], rules: [...ingress.rules] },
        remarks: [...remarks],
      },
    ];
  });
  const problems = estate.problems.map(
    ({ namespace, policy, message }) => `${namespace}/${policy}: ${message}`,
  );
  const open = pairs.filter(({ allowed }) => allowed).length;
  const [first] = pairs;
  if (first === undefined)
    return { allowed: null, why: 'no pod stands behind this port of the service', pairs, problems };
  if (open > 0 && open < pairs.length)
    return {
      allowed: null,
      why: `${open} of ${pairs.length} pods behind the service are reached`,
      pairs,
      problems,
    };
  return { allowed: first.allowed, why: first.why, pairs, problems };
}

export function networkPolicyRoutes(app: FastifyInstance, ask: InventoryQuestions): void {
  app.get<{ Querystring: Static<typeof OpinionParameters> }>(
    '/api/v1/networkpolicy/opinion',
    {
      schema: routeSchema({
        tag: 'rules',
        summary: 'What the NetworkPolicies of Kubernetes would say of a connection',
        description:
          'A second opinion beside ours: policies, pods and namespaces as they are now, evaluated as Kubernetes defines it.',
        querystring: OpinionParameters,
        answer: OpinionAnswer,
      }),
    },
    async (request, reply): Promise<OpinionAnswer> => {
      const { source, destination, port } = request.query;
      const asked = portOf(port);
      return ask(clientSignal(reply), async (bus, signal) => {
        const targets = [
          await targetOf(bus, 'source', source, signal),
          await targetOf(bus, 'destination', destination, signal),
        ] as const;
        return opinionsOf(targets, await readTopic(bus, neededKeys(targets), signal), asked);
      });
    },
  );
}

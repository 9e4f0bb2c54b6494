/** What Kubernetes itself would say of a connection, in words: the second opinion beside a verdict. */
import type { DirectionAnswer, DirectionReason, NetworkPolicyEngine } from './engine.ts';
import type { Direction, End, NetworkPolicy, PolicyProtocol } from './model.ts';
import { portsText, unionOf } from './port-set.ts';

export interface NamedRule {
  readonly namespace: string;
  readonly policy: string;
  /** `ingress[0]` */
  readonly rule: string;
  /** Ports it opens to this peer: `TCP 443`. */
  readonly ports: string;
}

export interface DirectionOpinion {
  readonly direction: Direction;
  readonly allowed: boolean;
  readonly reason: DirectionReason;
  /** One sentence. */
  readonly why: string;
  /** Policies that isolate the pod in this direction, as namespace/name. */
  readonly policies: readonly string[];
  /** Rules that let it through; where none does, those that would on other ports. */
  readonly rules: readonly NamedRule[];
}

export interface Opinion {
  readonly allowed: boolean;
  /** One sentence: what decides. */
  readonly why: string;
  readonly egress: DirectionOpinion;
  readonly ingress: DirectionOpinion;
  /** Where Kubernetes leaves open what happens, or something is not known: what was taken for granted. */
  readonly remarks: readonly string[];
}

const policyName = ({ namespace, name }: NetworkPolicy): string => `${namespace}/${name}`;

/** `a, b and c`; of many the first ones. */
function listed(names: readonly string[]): string {
  const most = 4;
  const shown =
    names.length > most + 1 ? [...names.slice(0, most), `${names.length - most} others`] : [...names];
  const last = shown.pop() ?? '';
  return shown.length === 0 ? last : `${shown.join(', ')} and ${last}`;
}

const plural = (count: number, word: string): string =>
  count === 1 ? word : word.endsWith('y') ? `${word.slice(0, -1)}ies` : `${word}s`;

function sentence({ direction, reason, policies, rules }: DirectionAnswer): string {
  const end = direction === 'egress' ? 'source' : 'destination';
  switch (reason) {
    case 'no-pod':
      return `the ${end} is no pod of the cluster, so no policy selects it`;
    case 'host-network':
      return `the ${end} is a pod on the network of its node, which policies do not select`;
    case 'itself':
      return 'a pod can always reach itself';
    case 'own-node':
      return 'a pod and the node it runs on can always reach each other';
    case 'not-isolated':
      return `no policy selects the ${end} for ${direction}`;
    case 'rule': {
      const names = rules.map(({ policy, index }) => `${policyName(policy)} ${direction}[${index}]`);
      return `${listed(names)} ${names.length === 1 ? 'allows' : 'allow'} it`;
    }
    case 'no-rule': {
      const by = `${plural(policies.length, 'policy')} ${listed(policies.map(policyName))} ${
        policies.length === 1 ? 'isolates' : 'isolate'
      } the ${end} for ${direction}`;
      if (rules.length === 0) return `${by}, and no rule speaks of the other end`;
      const ports = portsText(unionOf(rules.map((rule) => rule.ports)));
      return `${by}, and the rules that speak of the other end open ${ports} only`;
    }
  }
}

function inWords(answer: DirectionAnswer): DirectionOpinion {
  const { direction, allowed, reason, policies, rules } = answer;
  return {
    direction,
    allowed,
    reason,
    why: sentence(answer),
    policies: policies.map(policyName),
    rules: rules.map(({ policy, index, ports }) => ({
      namespace: policy.namespace,
      policy: policy.name,
      rule: `${direction}[${index}]`,
      ports: portsText(ports),
    })),
  };
}

const isHostNetwork = (end: End): boolean => end.kind === 'pod' && end.pod.hostNetwork;

const usesBlocks = (policies: readonly NetworkPolicy[], direction: Direction): boolean =>
  policies.some((policy) =>
    (policy[direction] ?? []).some(({ peers }) => peers?.some(({ kind }) => kind === 'block') === true),
  );

function remarksOn(
  { egress, ingress }: { readonly egress: DirectionAnswer; readonly ingress: DirectionAnswer },
  source: End,
  destination: End,
  protocol: PolicyProtocol | null,
): string[] {
  const remarks: string[] = [];
  for (const [word, end] of [
    ['source', source],
    ['destination', destination],
  ] as const)
    if (isHostNetwork(end))
      remarks.push(
        `the ${word} shares the network of its node: Kubernetes leaves open what policies do then; taken here as traffic of the node, which is what most network plugins do`,
      );
  const isolated = egress.policies.length + ingress.policies.length > 0;
  if (protocol === null && isolated)
    remarks.push(
      'Kubernetes defines policies for TCP, UDP and SCTP only; taken here as a protocol that only rules without ports let through',
    );
  for (const [answer, other, word] of [
    [egress, destination, 'destination'],
    [ingress, source, 'source'],
  ] as const) {
    if (!usesBlocks(answer.policies, answer.direction)) continue;
    if (other.address === null)
      remarks.push(`the address of the ${word} is not known, so no ipBlock was taken to hold it`);
    else if (other.kind === 'pod')
      remarks.push(
        `the ${word} is a pod, and network plugins differ in whether an ipBlock holds pods; taken here by its address`,
      );
  }
  return remarks;
}

/**
 * @param from policies of the cluster of the source, null where it is in none
 * @param to policies of the cluster of the destination; the same engine where both are in one cluster
 * @param seen ends as each of the clusters sees them, where those are two: the other's pods are addresses
 */
export function kubernetesOpinion(
  from: NetworkPolicyEngine | null,
  to: NetworkPolicyEngine | null,
  seen: {
    readonly source: End;
    readonly destination: End;
    readonly sourceFromAfar?: End;
    readonly destinationFromAfar?: End;
  },
  port: number,
  protocol: PolicyProtocol | null,
): Opinion {
  const { source, destination } = seen;
  const open = (direction: Direction): DirectionAnswer => ({
    direction,
    allowed: true,
    reason: 'no-pod',
    policies: [],
    rules: [],
  });
  const egress =
    from?.explain('egress', source, seen.destinationFromAfar ?? destination, port, protocol) ??
    open('egress');
  const ingress =
    to?.explain('ingress', seen.sourceFromAfar ?? source, destination, port, protocol) ?? open('ingress');
  const answers = { egress, ingress };
  const denying = [egress, ingress].filter(({ allowed }) => !allowed);
  const sentences = (denying.length > 0 ? denying : [egress, ingress]).map(sentence);
  return {
    allowed: denying.length === 0,
    why: whole(sentences, answers),
    egress: inWords(egress),
    ingress: inWords(ingress),
    remarks: remarksOn(answers, source, destination, protocol),
  };
}

/** The sentence that says most: of two ends without policies one, unless both say the same. */
function whole(
  sentences: readonly string[],
  { egress, ingress }: { readonly egress: DirectionAnswer; readonly ingress: DirectionAnswer },
): string {
  if (egress.reason === 'not-isolated' && ingress.reason === 'not-isolated')
    return 'no policy selects the source for egress or the destination for ingress';
  return [...new Set(sentences)].join('; ');
}

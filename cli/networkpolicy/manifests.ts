/** Reads from manifests what NetworkPolicies are evaluated over: namespaces, what makes pods, and the policies. */
import type { Labels, NamedPort, NetworkPolicy, Pod, PolicyCluster } from '../../lib/networkpolicy/model.ts';
import { policyProtocols } from '../../lib/networkpolicy/model.ts';
import { readPolicySpec, wayText } from '../../lib/networkpolicy/read.ts';
import {
  at,
  isRecord,
  type ManifestObject,
  type ManifestProblem,
  manifestObjects,
  nameOf,
  namespaceOf,
  type Place,
  podTemplates,
  type Way,
} from '../manifests/objects.ts';

/** Something that makes pods, which are all alike to policies. */
export interface PolicyWorkload extends Place {
  readonly kind: string;
  readonly pod: Pod;
}

export interface PolicyManifests {
  readonly cluster: PolicyCluster;
  readonly workloads: readonly PolicyWorkload[];
  readonly problems: readonly ManifestProblem[];
}

const apiGroup = 'networking.k8s.io/v1';

class Reader {
  readonly #defaultNamespace: string;
  readonly namespaces = new Map<string, Labels>();
  readonly policies: NetworkPolicy[] = [];
  readonly workloads: PolicyWorkload[] = [];
  readonly problems: ManifestProblem[] = [];
  readonly #seen = new Set<string>();

  constructor(defaultNamespace: string) {
    this.#defaultNamespace = defaultNamespace;
  }

  object(object: ManifestObject): void {
    const { document, way, kind } = object;
    const template = Object.hasOwn(podTemplates, kind) ? podTemplates[kind] : undefined;
    if (template === undefined && kind !== 'Namespace' && kind !== 'NetworkPolicy') return;
    const name = nameOf(object);
    if (name === null) return;
    const namespace = kind === 'Namespace' ? '' : namespaceOf(object, this.#defaultNamespace);
    const ref = `${kind} ${namespace === '' ? name : `${namespace}/${name}`}`;
    if (this.#seen.has(ref)) {
      document.report(way, `document ${document.number}: ${ref} is defined twice`);
      return;
    }
    this.#seen.add(ref);
    if (kind === 'Namespace') this.namespaces.set(name, document.texts([...way, 'metadata', 'labels']));
    else if (template === undefined) this.#policy(object, namespace, name, ref);
    else {
      const pod = this.#pod(object, [...way, ...template], namespace, name, ref);
      this.workloads.push({ ...document.place(way), kind, pod });
    }
  }

  #policy({ document, way }: ManifestObject, namespace: string, name: string, ref: string): void {
    const say = (place: Way, message: string): void =>
      document.report([...way, ...place], `document ${document.number}, ${ref}: ${message}`);
    const version = at(document.value, [...way, 'apiVersion']);
    if (version !== apiGroup) {
      say(['apiVersion'], `apiVersion: must be ${apiGroup}, not ${JSON.stringify(version) ?? 'absent'}`);
      return;
    }
    const read = readPolicySpec(namespace, name, at(document.value, [...way, 'spec']));
    if (read.ok) this.policies.push(read.policy);
    else
      for (const problem of read.problems) {
        const place = ['spec', ...problem.way];
        say(place, `${wayText(place)}: ${problem.message}`);
      }
  }

  #pod({ document }: ManifestObject, template: Way, namespace: string, name: string, ref: string): Pod {
    const spec = [...template, 'spec'];
    const ports: NamedPort[] = [];
    for (const list of ['containers', 'initContainers']) {
      const containers = at(document.value, [...spec, list]);
      for (const [i, container] of (Array.isArray(containers) ? containers : []).entries()) {
        const own = isRecord(container) ? container : {};
        if (list === 'initContainers' && own.restartPolicy !== 'Always') continue;
        for (const [k, port] of (Array.isArray(own.ports) ? own.ports : []).entries()) {
          const way = [...spec, list, i, 'ports', k];
          const named = namedPort(port);
          if (named === 'wrong')
            document.report(
              way,
              `document ${document.number}, ${ref}: ${wayText(way)}: needs containerPort, a number from 1 to 65535, and protocol TCP, UDP or SCTP if any`,
            );
          else if (named !== null) ports.push(named);
        }
      }
    }
    const node = at(document.value, [...spec, 'nodeName']);
    return {
      namespace,
      name,
      labels: document.texts([...template, 'metadata', 'labels']),
      node: typeof node === 'string' ? node : '',
      hostNetwork: at(document.value, [...spec, 'hostNetwork']) === true,
      namedPorts: ports,
    };
  }
}

/** Null for a port without a name: policies can only speak of its number. */
function namedPort(value: unknown): NamedPort | 'wrong' | null {
  if (!isRecord(value)) return 'wrong';
  const { name, containerPort: port, protocol: given } = value;
  const protocol = policyProtocols.find((known) => known === (given ?? 'TCP'));
  if (typeof port !== 'number' || !Number.isInteger(port) || port < 1 || port > 65535) return 'wrong';
  if (protocol === undefined) return 'wrong';
  return typeof name === 'string' && name !== '' ? { name, port, protocol } : null;
}

/**
 * Reads texts (file name -> YAML or JSON, several documents in each); other kinds of objects are passed over.
 * @param defaultNamespace where an object names none
 */
export function readPolicyManifests(
  texts: ReadonlyMap<string, string>,
  defaultNamespace: string,
): PolicyManifests {
  const reader = new Reader(defaultNamespace);
  for (const [file, text] of texts)
    for (const object of manifestObjects(file, text, reader.problems)) reader.object(object);
  const { namespaces, policies, workloads, problems } = reader;
  return { cluster: { namespaces, policies }, workloads, problems };
}

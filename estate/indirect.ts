/** Communication whose ends are not what their addresses say: node ports, listed names, headless services, other clusters. */
import { headless, machineGroups } from './catalogue.ts';
import type { Directory } from './directory.ts';
import type { Endpoint } from './ends.ts';
import { allowedBy, type Outcome, type Party, type Pattern, pattern, udp, unexplained } from './patterns.ts';
import { rulesets } from './policy.ts';
import type { Cluster, Deployment, MachineGroup, Service, World } from './world.ts';

type Given = Parameters<typeof pattern>[0];

function pods(deployment: Deployment): Party {
  return { type: 'pods', deployment };
}

function fixed(...endpoints: Endpoint[]): Party {
  return { type: 'fixed', endpoints };
}

/** A service that machines outside the cluster reach by any node, and by its load balancer. */
export function edgeOf(cluster: Cluster): Service | null {
  const ingress = cluster.namespaces
    .flatMap(({ deployments }) => deployments)
    .find((d) => d.role === 'ingress');
  return ingress?.service ?? null;
}

class IndirectBuilder {
  readonly list: Given[] = [];
  readonly #world: World;
  readonly #directory: Directory;

  constructor(world: World, directory: Directory) {
    this.#world = world;
    this.#directory = directory;
  }

  #add(of: Omit<Given, 'weight'>): void {
    this.list.push({ ...of, weight: 1 });
  }

  build(): void {
    const { clusters, groups } = this.#world;
    const appserver = groups[machineGroups.length];
    for (const cluster of clusters) {
      const deployments = cluster.namespaces.flatMap((namespace) => namespace.deployments);
      const workers = deployments.find(({ role, env }) => role === 'worker' && env === 'prod');
      const elsewhere = clusters[(cluster.index + 1) % clusters.length];
      const edge = elsewhere && edgeOf(elsewhere);
      if (workers === undefined || elsewhere === undefined || edge === null || edge === undefined) continue;
      this.#edgeByNode(pods(workers), edge, elsewhere);
      if (elsewhere !== cluster) this.#edgeByLoadBalancer(pods(workers), edge);
      if (appserver !== undefined) this.#edgeByNode({ type: 'machines', group: appserver }, edge, elsewhere);
      this.#headless(deployments, workers);
      this.#names(pods(workers));
      this.#nodes(cluster);
    }
    if (appserver !== undefined) this.#fromMachines(appserver);
    this.#databaseByNode();
  }

  /** The caller sees the node, the node's address takes the place of the caller's, and the pod sees that. */
  #edgeByNode(source: Party, edge: Service, cluster: Cluster): void {
    const covered = allowedBy(rulesets.platform, 'edge');
    for (const node of [0, cluster.nodeCount - 1]) {
      const through = {
        source,
        destination: pods(edge.deployment),
        port: edge.targetPort,
        front: this.#directory.nodePort(edge, node),
        frontPort: edge.nodePort,
        frontAt: 'load-balancer' as const,
      };
      // The rule knows the service's port, not the node's.
      this.#add({ ...through, outcome: unexplained('port-not-covered'), reportedBy: 'source' });
      this.#add({
        ...through,
        outcome: covered,
        masqueraded: covered,
        entryNode: this.#directory.node(cluster, node),
        reportedBy: 'destination',
      });
    }
  }

  #edgeByLoadBalancer(source: Party, edge: Service): void {
    const outcome = allowedBy(rulesets.platform, 'edge');
    this.#add({
      source,
      destination: pods(edge.deployment),
      port: edge.targetPort,
      front: this.#directory.service(edge, 'load-balancer'),
      frontPort: edge.port,
      frontAt: 'load-balancer',
      outcome,
      masqueraded: outcome,
    });
  }

  #headless(deployments: readonly Deployment[], workers: Deployment): void {
    const monitoring = deployments.find(({ role }) => role === headless.role);
    if (monitoring === undefined) return;
    this.#add({
      source: pods(workers),
      destination: pods(monitoring),
      port: headless.port,
      outcome: unexplained('no-rule'),
      dnsName: `${headless.name}.platform.svc.cluster.local`,
    });
  }

  #names(source: Party): void {
    const directory = this.#directory;
    const call = (endpoint: Endpoint, dnsName: string, port = 443): void =>
      this.#add({
        source,
        destination: fixed(endpoint),
        port,
        outcome: unexplained('no-rule'),
        dnsName,
        reportedBy: 'source',
      });
    call(directory.named('192.0.2.81', 'card-network'), 'auth.cardnet.example');
    call(directory.named('192.0.2.82', 'card-network'), 'eu.clear.cardnet.example');
    call(directory.named('192.0.2.83', 'card-network-test'), 'auth.test.cardnet.example');
    // The very address, called by another name and by none: no listed one then.
    call(directory.outside('192.0.2.81', 'internet'), 'cardnet.example', 8443);
    call(directory.outside('192.0.2.84', 'internet'), 'auth.cardnet.example.attacker.example');
    // Somebody looked up what this name resolves to, so it needs none.
    call(directory.named('192.0.2.40', 'rating-agency'), '');
    call(directory.named('192.0.2.43', 'rating-agency'), 'feeds.ratings.example');
    // A name within a range that has a name itself.
    call(directory.named('10.31.8.20', 'group-shares'), 'shares.bank.example', 445);
  }

  #nodes(cluster: Cluster): void {
    const resolvers = this.#world.groups.find(({ name }) => name === 'resolvers');
    if (resolvers === undefined) return;
    this.#add({
      source: { type: 'nodes', cluster },
      destination: { type: 'machines', group: resolvers },
      port: 53,
      protocol: udp,
      shape: 'lookup',
      outcome: allowedBy(rulesets.datacentre, 'resolvers'),
    });
  }

  /** Machines call by names as well; a workload's own name is stronger than the one it was called by. */
  #fromMachines(group: MachineGroup): void {
    const source: Party = { type: 'machines', group };
    const none: Outcome = unexplained('no-rule');
    const files = this.#world.groups.find(({ name }) => name === 'files');
    if (files !== undefined)
      this.#add({
        source,
        destination: { type: 'machines', group: files },
        port: 445,
        outcome: none,
        dnsName: 'shares.bank.example',
      });
    this.#add({
      source,
      destination: fixed(this.#directory.named('192.0.2.41', 'rating-agency')),
      port: 443,
      outcome: none,
      reportedBy: 'source',
    });
  }

  /** Translated on the caller's own node: the pod is the destination, the node port what it was before. */
  #databaseByNode(): void {
    const { deployments } = this.#world;
    const notebook = deployments.find(({ name }) => name === 'notebook');
    const database = deployments.find(
      ({ service, role, namespace }) =>
        role === 'db' && (service?.nodePort ?? 0) !== 0 && namespace.cluster === notebook?.namespace.cluster,
    );
    if (notebook === undefined || database?.service == null) return;
    this.#add({
      source: pods(notebook),
      destination: pods(database),
      port: database.service.targetPort,
      front: this.#directory.nodePort(database.service, 0),
      frontPort: database.service.nodePort,
      frontAt: 'cluster',
      outcome: unexplained('no-rule'),
    });
  }
}

/** Patterns that together are the wanted share of all connections, beside others of the given weight. */
export function makeIndirectPatterns(
  world: World,
  directory: Directory,
  share: number,
  otherWeight: number,
): Pattern[] {
  if (share === 0) return [];
  const builder = new IndirectBuilder(world, directory);
  builder.build();
  const weight = (otherWeight * share) / (1 - share) / builder.list.length;
  return builder.list.map((of) => pattern({ ...of, weight }));
}

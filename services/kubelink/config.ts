/** Configuration of kubelink: where the inventory comes from, and how long what has ended is kept. */
import Type, { type Static } from 'typebox';

const closed = { additionalProperties: false };

const sourceName = Type.Optional(
  Type.String({
    minLength: 1,
    maxLength: 256,
    description:
      'Name of the source. It owns what it publishes: only the source of this name ends it again. Must be unique among all kubelinks of one bus. Default: made of kind and cluster, path or hostname.',
  }),
);
const cidrs = (what: string) => Type.Array(Type.String(), { default: [], description: what });

export const ManifestsSource = Type.Object(
  {
    kind: Type.Literal('manifests'),
    name: sourceName,
    path: Type.String({
      minLength: 1,
      description:
        'Folder (read with its subfolders: .yaml, .yml, .json) or file of Kubernetes objects. A file that disappears from the folder ends its objects; while the path itself is missing, all stays as it is.',
    }),
    cluster: Type.String({
      minLength: 1,
      maxLength: 253,
      description: 'Name of the cluster; also the name of its pod network.',
    }),
    podCidrs: cidrs('Pod address ranges of the cluster. Empty: those that its nodes name.'),
    serviceCidrs: cidrs('Service address ranges of the cluster.'),
  },
  closed,
);

export const KubernetesSource = Type.Object(
  {
    kind: Type.Literal('kubernetes'),
    name: sourceName,
    cluster: Type.String({
      minLength: 1,
      maxLength: 253,
      description: 'Name of the cluster; also the name of its pod network.',
    }),
    kubeconfig: Type.Optional(
      Type.String({
        minLength: 1,
        description:
          'Path of a kubeconfig. Default: the service account of the pod that kubelink runs in, in its own cluster.',
      }),
    ),
    context: Type.Optional(
      Type.String({ minLength: 1, description: 'Context of the kubeconfig. Default: its current one.' }),
    ),
    excludedNamespaces: Type.Array(Type.String({ minLength: 1 }), {
      default: [],
      description: 'Namespaces that are left out, with all in them; a * stands for any text.',
    }),
    podCidrs: cidrs('Pod address ranges of the cluster. Empty: those that its nodes name.'),
    serviceCidrs: cidrs('Service address ranges of the cluster.'),
    acceptUid: Type.Optional(
      Type.String({
        minLength: 1,
        description:
          'uid of the namespace kube-system of a cluster that takes the place of another one of the same name. Needed once after the cluster was built anew.',
      }),
    ),
    lease: Type.Boolean({
      default: true,
      description:
        'Publish only while holding a lease in the cluster, so that of several kubelinks one writes and the others stand by.',
    }),
    leaseNamespace: Type.Optional(
      Type.String({
        minLength: 1,
        description: 'Namespace of the lease. Default: that of the context or of the pod, else eastwest.',
      }),
    ),
    leaseName: Type.String({
      minLength: 1,
      maxLength: 253,
      default: 'eastwest-kubelink',
      description: 'Name of the lease.',
    }),
    leaseDurationMs: Type.Integer({
      minimum: 2000,
      default: 15_000,
      description:
        'Milliseconds after which another kubelink takes over from one that no longer renews its lease; whole seconds.',
    }),
    pageSize: Type.Integer({
      minimum: 1,
      maximum: 10_000,
      default: 500,
      description: 'Most objects of one page of a list.',
    }),
    watchList: Type.Boolean({
      default: true,
      description: 'Read the first state as a stream where the server can (1.32 and later); false: in pages.',
    }),
    statusLagMs: Type.Integer({
      minimum: 0,
      default: 1000,
      description:
        'Milliseconds after which the API server knows of an address that changed hands. So far behind the present is what this source vouches for.',
    }),
    probeIntervalMs: Type.Integer({
      minimum: 10,
      default: 250,
      description: 'Milliseconds between two proofs that nothing the server knows is missing here.',
    }),
    frozenTimeoutMs: Type.Integer({
      minimum: 100,
      default: 5000,
      description: 'Milliseconds without an answer to a ping after which a connection is given up.',
    }),
  },
  { ...closed, description: 'A Kubernetes cluster, by its API server.' },
);

export const HostsSource = Type.Object(
  {
    kind: Type.Literal('hosts'),
    name: sourceName,
    path: Type.String({
      minLength: 1,
      description:
        'Folder or file of VMs, bare-metal hosts and named ranges; the format is in docs/inventory.md.',
    }),
  },
  closed,
);

export const LocalHostSource = Type.Object(
  {
    kind: Type.Literal('local-host'),
    name: sourceName,
    network: Type.String({
      minLength: 1,
      default: 'local',
      description: 'Network in which the addresses of this machine, loopback included, are published.',
    }),
    intervalMs: Type.Integer({
      minimum: 100,
      default: 500,
      description:
        'Milliseconds between two readings of the interface addresses; flows of this machine have certain names only behind the last one.',
    }),
  },
  closed,
);

export const ApiSource = Type.Object(
  {
    kind: Type.Literal('api'),
    name: sourceName,
    maxWorkloadCount: Type.Integer({
      minimum: 1,
      default: 200_000,
      description:
        'Most workloads put over HTTP that may live at once; more are not taken, and the log names them.',
    }),
  },
  {
    ...closed,
    description:
      'Workloads that others put with PUT /api/v1/workloads. One kubelink of a bus has it; `eastwest up` adds it.',
  },
);

export const RetiredSource = Type.Object(
  {
    kind: Type.Literal('retired'),
    name: Type.String({
      minLength: 1,
      description: 'Name of a source that is no longer configured anywhere: what it still owns is ended.',
    }),
  },
  closed,
);

export const SourceConfig = Type.Union([
  KubernetesSource,
  ManifestsSource,
  HostsSource,
  LocalHostSource,
  ApiSource,
  RetiredSource,
]);

export const NamesConfig = Type.Object(
  {
    intervalMs: Type.Integer({
      minimum: 100,
      default: 60_000,
      description: 'Milliseconds between two look-ups of all names.',
    }),
    timeoutMs: Type.Integer({
      minimum: 10,
      default: 2000,
      description: 'How long one server has to answer before it is asked again, milliseconds.',
    }),
    tries: Type.Integer({ minimum: 1, maximum: 10, default: 2, description: 'How often a server is asked.' }),
    servers: Type.Array(Type.String({ minLength: 1 }), {
      default: [],
      description: 'DNS servers, as addresses with or without :port. Empty: those of the system.',
    }),
    concurrency: Type.Integer({
      minimum: 1,
      maximum: 256,
      default: 8,
      description: 'Most names that are looked up at once.',
    }),
    maxLookups: Type.Integer({
      minimum: 1,
      default: 1000,
      description: 'Most DNS names of one source that are looked up; the log says how many are not.',
    }),
    maxAddressesPerName: Type.Integer({
      minimum: 1,
      default: 256,
      description: 'Most addresses that one listed name has at a time.',
    }),
    keepMs: Type.Integer({
      minimum: 0,
      default: 600_000,
      description:
        "Milliseconds that an address stays the name's after the last answer that held it: many names answer with a few of their addresses at a time.",
    }),
  },
  {
    ...closed,
    default: {},
    description: 'Look-ups of the addresses of listed DNS names (`resolve: true` in a hosts file).',
  },
);

export const KubelinkConfig = Type.Object(
  {
    sources: Type.Array(SourceConfig, {
      default: [],
      maxItems: 256,
      description: 'Where the inventory comes from.',
    }),
    carriedAnnotations: Type.Array(Type.String(), {
      default: ['eastwest.io/*'],
      description: 'Annotations that are carried along; a * at the end stands for any rest.',
    }),
    droppedLabels: Type.Array(Type.String(), {
      default: [
        'pod-template-hash',
        'pod-template-generation',
        'controller-revision-hash',
        'controller-uid',
        'job-name',
        'batch.kubernetes.io/controller-uid',
        'batch.kubernetes.io/job-name',
        'batch.kubernetes.io/job-completion-index',
        'apps.kubernetes.io/pod-index',
        'statefulset.kubernetes.io/pod-name',
        'kubernetes.io/hostname',
      ],
      description:
        'Labels that only tell one replica from another and are left out; a * at the end stands for any rest.',
    }),
    endedRetentionMs: Type.Integer({
      minimum: 0,
      default: 24 * 3_600_000,
      description:
        'Milliseconds that an ended workload, service, namespace or cluster stays on the topic before its tombstone.',
    }),
    watermarkIntervalMs: Type.Integer({
      minimum: 10,
      default: 500,
      description:
        'Milliseconds between two statements of each source that it has told everything up to a moment (its watermark); clusters are stated as soon as that is proven. Flows are certain of their names only behind it.',
    }),
    names: NamesConfig,
    rescanMs: Type.Integer({
      minimum: 100,
      default: 15_000,
      description:
        'Milliseconds between two looks at all files, in case the operating system did not report a change.',
    }),
    debounceMs: Type.Integer({
      minimum: 0,
      default: 200,
      description: 'Milliseconds of quiet after a reported change before files are read.',
    }),
    maxFileBytes: Type.Integer({
      minimum: 1,
      maximum: 512 * 1024 * 1024 - 1024,
      default: 256 * 1024 * 1024,
      description: 'Largest file that is read, bytes.',
    }),
    maxFileCount: Type.Integer({
      minimum: 1,
      default: 20_000,
      description: 'Most files that are read from one folder.',
    }),
    maxBatchMessageCount: Type.Integer({
      minimum: 1,
      default: 1000,
      description: 'Most events that are handed to the bus at once.',
    }),
    maxBatchBytes: Type.Integer({
      minimum: 1024,
      default: 4 * 1024 * 1024,
      description: 'Most bytes of events that are handed to the bus at once.',
    }),
    maxRetryDelayMs: Type.Integer({
      minimum: 10,
      default: 10_000,
      description: 'Longest pause between two tries while the bus is away, milliseconds.',
    }),
  },
  { ...closed, description: 'Inventory of clusters, VMs and bare metal.' },
);

export type KubernetesSource = Static<typeof KubernetesSource>;
export type ManifestsSource = Static<typeof ManifestsSource>;
export type HostsSource = Static<typeof HostsSource>;
export type LocalHostSource = Static<typeof LocalHostSource>;
export type NamesConfig = Static<typeof NamesConfig>;
export type ApiSource = Static<typeof ApiSource>;
export type SourceConfig = Static<typeof SourceConfig>;
export type KubelinkConfig = Static<typeof KubelinkConfig>;

/** What the bank consists of, before any number is drawn: applications, their tiers and ports, groups of machines, ranges. */

export const environments = ['prod', 'uat', 'dev'] as const;
export type Environment = (typeof environments)[number];

/** Tiers of an application; the value of the label `role`. */
export const tiers = ['web', 'api', 'worker', 'db', 'cache', 'batch'] as const;
export type Tier = (typeof tiers)[number];

/** The Kubernetes label that says which tier a pod is, and its values where the bank has words of its own. */
export const componentLabel = 'app.kubernetes.io/component';
export const components: Readonly<Record<Tier, string>> = {
  web: 'frontend',
  api: 'backend',
  worker: 'worker',
  db: 'database',
  cache: 'cache',
  batch: 'batch',
};

/** Service port and container port of the tiers that are called. */
export const tierPorts: Readonly<Partial<Record<Tier, readonly [service: number, target: number]>>> = {
  web: [80, 8080],
  api: [80, 8080],
  db: [5432, 5432],
  cache: [6379, 6379],
};

const shapes: readonly (readonly Tier[])[] = [
  ['web', 'api', 'worker', 'db', 'cache', 'batch'],
  ['api', 'worker', 'db', 'batch'],
  ['api', 'worker', 'db'],
  ['api', 'worker', 'cache'],
  ['api', 'db'],
  ['web', 'api', 'db', 'cache'],
];

/** The tiers of the application at an index. */
export function tiersOf(appIndex: number): readonly Tier[] {
  return shapes[appIndex % shapes.length] ?? [];
}

const wellKnown =
  'payments analytics ledger fraud swift-gateway mobile-banking cards treasury onboarding statements limits pricing settlement sanctions collateral loans'.split(
    ' ',
  );
const domains =
  'retail corporate wealth custody mortgage leasing insurance equities bonds forex derivatives repo deposits savings pension merchant branch atm card wire direct-debit trade-finance securities funds brokerage credit risk tax archive market-data'.split(
    ' ',
  );
const functions =
  'portal accounts booking clearing orders confirmations reporting reconciliation notifications scoring documents search calendar rates quotes positions alerts audit consent exports'.split(
    ' ',
  );

/** The name of the application at an index, 0 to 615. */
export function appName(index: number): string {
  const known = wellKnown[index];
  if (known !== undefined) return known;
  const rest = index - wellKnown.length;
  // Walks functions fastest for a mixed neighbourhood; 30 domains times 20 functions are all distinct.
  return `${domains[Math.floor(rest / functions.length) % domains.length]}-${functions[rest % functions.length]}`;
}

/** Most applications there are names for. */
export const appLimit = wellKnown.length + domains.length * functions.length;

/** Namespaces of these applications follow no convention: each has a profile of its own. */
export function isTeamNamed(appIndex: number): boolean {
  return appIndex % 100 === 1;
}

export function namespaceName(appIndex: number, env: Environment): string {
  return `${isTeamNamed(appIndex) ? 'team-' : ''}${appName(appIndex)}-${env}`;
}

/** A kind of machine outside Kubernetes. */
export interface MachineGroupSpec {
  readonly name: string;
  readonly app: string;
  readonly role: string;
  readonly kind: 'vm' | 'host';
  readonly critical: boolean;
  /** Share of all machines of its kind; every group has at least one. */
  readonly share: number;
}

export const machineGroups: readonly MachineGroupSpec[] = [
  { name: 'mainframe', app: 'mainframe', role: 'mainframe', kind: 'host', critical: true, share: 0.01 },
  { name: 'hadoop', app: 'hadoop', role: 'datanode', kind: 'host', critical: false, share: 0.85 },
  { name: 'backup', app: 'backup', role: 'backup', kind: 'host', critical: false, share: 0.14 },
  { name: 'oracle', app: 'oracle', role: 'oracle', kind: 'vm', critical: true, share: 0.04 },
  { name: 'directory', app: 'active-directory', role: 'directory', kind: 'vm', critical: true, share: 0.002 },
  { name: 'resolvers', app: 'dns', role: 'resolver', kind: 'vm', critical: true, share: 0.001 },
  { name: 'mq', app: 'ibm-mq', role: 'queue', kind: 'vm', critical: false, share: 0.01 },
  { name: 'proxy', app: 'proxy', role: 'proxy', kind: 'vm', critical: false, share: 0.002 },
  { name: 'files', app: 'files', role: 'files', kind: 'vm', critical: false, share: 0.005 },
];

/** Application servers take the machines that are left, in groups of at most this many. */
export const appserverGroupSize = 60;

export interface RangeSpec {
  readonly name: string;
  readonly cidrs: readonly string[];
  readonly zone: 'inside' | 'outside';
  readonly labels: Readonly<Record<string, string>>;
}

/** Ranges that the bank has named. What is public and in none of them is in the built-in range `internet`. */
export const ranges: readonly RangeSpec[] = [
  { name: 'data-centre', cidrs: ['10.16.0.0/12'], zone: 'inside', labels: { zone: 'data-centre' } },
  { name: 'branch-offices', cidrs: ['10.64.0.0/12'], zone: 'inside', labels: { app: 'branch' } },
  {
    name: 'branch-zurich',
    cidrs: ['10.64.1.0/24'],
    zone: 'inside',
    labels: { app: 'branch', loc: 'zurich' },
  },
  { name: 'partner-acme', cidrs: ['198.51.100.0/24'], zone: 'outside', labels: { app: 'partner-acme' } },
  { name: 'cloud-storage', cidrs: ['52.216.0.0/15'], zone: 'outside', labels: { app: 'cloud-storage' } },
];

export interface ListedName {
  readonly name: string;
  readonly dns: readonly string[];
  readonly zone: 'inside' | 'outside';
  readonly labels: Readonly<Record<string, string>>;
  /** What the names were found to resolve to, where somebody looked. */
  readonly addresses: readonly string[];
}

/** DNS names that the bank has listed. */
export const listedNames: readonly ListedName[] = [
  {
    name: 'card-network',
    dns: ['*.cardnet.example'],
    zone: 'outside',
    labels: { app: 'card-network' },
    addresses: [],
  },
  {
    name: 'card-network-test',
    dns: ['*.test.cardnet.example'],
    zone: 'outside',
    labels: { app: 'card-network', env: 'dev' },
    addresses: [],
  },
  {
    name: 'rating-agency',
    dns: ['feeds.ratings.example'],
    zone: 'outside',
    labels: { app: 'rating-agency' },
    addresses: ['192.0.2.40', '192.0.2.41'],
  },
  {
    name: 'group-shares',
    dns: ['shares.bank.example'],
    zone: 'inside',
    labels: { app: 'group-shares' },
    addresses: [],
  },
];

export const podCidr = '10.244.0.0/16';
export const serviceCidr = '10.96.0.0/16';

/** Platform deployments of every cluster: name, role, service ports (0: not called through a service). */
export const platformDeployments = [
  {
    name: 'coredns',
    role: 'dns',
    service: 53,
    target: 53,
    protocol: 'UDP',
    perPods: 1500,
    loadBalancer: false,
  },
  {
    name: 'prometheus',
    role: 'monitoring',
    service: 0,
    target: 0,
    protocol: 'TCP',
    perPods: 8000,
    loadBalancer: false,
  },
  {
    name: 'edge-gateway',
    role: 'ingress',
    service: 443,
    target: 8443,
    protocol: 'TCP',
    perPods: 1000,
    loadBalancer: true,
  },
] as const;

/** Called by name without a service address in between; and its port. */
export const headless = { name: 'prometheus', role: 'monitoring', port: 9090 } as const;

export const platformNamespace = 'platform';
/** Nobody wrote a profile for this one: its pods have no labels. */
export const sandboxNamespace = 'sandbox-lab';

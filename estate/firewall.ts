/**
 * What the perimeter firewall of the bank says: a list that has grown for years, pinned to addresses. Each rule comes with
 * the verdict that an audit of the running estate reaches, and why.
 */
import { machineAddress } from './directory.ts';
import { ipv4, ipv4Text } from './ends.ts';
import { decommissioned } from './planted.ts';
import type { Deployment, MachineGroup, World } from './world.ts';

/** Verdicts as an audit gives them. */
export type ExpectedVerdict = 'unused' | 'reused' | 'owner-gone' | 'broader' | 'used';

export interface EstateFirewallRule {
  readonly source: string;
  readonly destination: string;
  readonly port: string;
  readonly action: 'permit' | 'deny';
  readonly comment: string;
  readonly owner: string;
  /** Once the estate has run for some minutes with churn. */
  readonly expected: ExpectedVerdict;
  readonly why: string;
}

/** Pods whose first addresses a rule was once pinned to. */
const pinnedPods = 300;

/** Where the first pod of a slot was, before anything came and went. */
function firstPodAddress(deployment: Deployment, slot: number): string {
  const { firstSlot, nodeCount } = deployment.namespace.cluster;
  const index = slot - firstSlot;
  return ipv4Text(ipv4(10, 244, index % nodeCount, 2 + Math.floor(index / nodeCount)));
}

function rangeOf(group: MachineGroup): string {
  const first = ipv4Text(machineAddress(group, group.first));
  const last = ipv4Text(machineAddress(group, group.first + group.count - 1));
  return group.count === 1 ? first : `${first}-${last}`;
}

/** The rules that a world of this size has the parts for, in the order of the firewall. */
export function makeFirewallRules(world: World): EstateFirewallRule[] {
  const group = (name: string): MachineGroup | undefined => world.groups.find((one) => one.name === name);
  const rules: EstateFirewallRule[] = [
    {
      source: 'any',
      destination: '203.0.113.66',
      port: '4444/tcp',
      action: 'deny',
      comment: 'SEC-0091 known command and control',
      owner: 'security',
      expected: 'used',
      why: 'a web pod calls there, past this firewall',
    },
    {
      source: '10.99.7.7',
      destination: '198.51.100.77',
      port: '20-21/tcp',
      action: 'permit',
      comment: 'NET-0311 FTP to partner, retired',
      owner: 'payments',
      expected: 'unused',
      why: 'nobody has the address, and nothing flows',
    },
    {
      source: 'any',
      destination: decommissioned.address,
      port: '873/tcp',
      action: 'permit',
      comment: 'NET-0875 rsync to the archive',
      owner: 'storage',
      expected: 'owner-gone',
      why: 'the machine was switched off, and a job still writes to its address',
    },
    {
      source: '10.16.0.0/12;10.244.0.0/16',
      destination: '198.51.100.0/24',
      port: 'any',
      action: 'permit',
      comment: 'NET-1203 partner acme',
      owner: 'integration',
      expected: 'broader',
      why: 'a network and all ports are open for a few pods that copy files',
    },
    {
      source: '10.244.0.0/16',
      destination: '198.51.100.25',
      port: '22',
      action: 'permit',
      comment: 'NET-1377 sftp to partner acme',
      owner: 'analytics',
      expected: 'unused',
      why: 'the rule before it takes all of it',
    },
  ];
  const directory = group('directory');
  if (directory !== undefined)
    rules.push({
      source: rangeOf(directory),
      destination: '203.0.113.99',
      port: '6667/tcp',
      action: 'permit',
      comment: 'NET-0042 chat of the operators',
      owner: 'operations',
      expected: directory.count === 1 ? 'used' : 'broader',
      why: 'the domain controllers call there one after another: used, once all of them have',
    });
  const oracle = group('oracle');
  // The first application uses Oracle, from its API and its workers.
  const callers = world.deployments.filter(
    ({ appIndex, role, env }) => appIndex === 0 && (role === 'api' || role === 'worker') && env !== '',
  );
  const pinned = callers
    .flatMap((deployment) =>
      Array.from({ length: deployment.slotCount }, (_, i) =>
        firstPodAddress(deployment, deployment.firstSlot + i),
      ),
    )
    .slice(0, pinnedPods);
  if (oracle !== undefined && pinned.length > 0)
    rules.push({
      source: [...new Set(pinned)].join(';'),
      destination: rangeOf(oracle),
      port: '1521/tcp',
      action: 'permit',
      comment: `NET-1521 ${callers[0]?.app ?? ''} to Oracle`,
      owner: callers[0]?.app ?? '',
      expected: 'reused',
      why: 'pods were replaced, and their addresses went to pods of other applications',
    });
  rules.push({
    source: 'any',
    destination: 'any',
    port: 'any',
    action: 'deny',
    comment: 'everything else',
    owner: 'security',
    expected: 'used',
    why: 'whatever does not pass by this firewall',
  });
  return rules;
}

function cell(text: string): string {
  return /[",]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** The rules as a file for `eastwest firewall audit`; rule i is on line i + 2. */
export function firewallCsv(rules: readonly EstateFirewallRule[]): string {
  const lines = rules.map(({ source, destination, port, action, comment, owner }) =>
    [source, destination, port, action, comment, owner].map(cell).join(','),
  );
  return `${['source,destination,port,action,comment,owner', ...lines].join('\n')}\n`;
}

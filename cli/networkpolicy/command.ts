/** `eastwest networkpolicy connections`: reads manifests, prints what their policies permit. */
import { exitCodes } from '../../lib/runtime/exit.ts';
import { openScreen } from '../ask/screen.ts';
import { readTexts } from '../manifests/files.ts';
import { placeText } from '../manifests/objects.ts';
import { permittedConnections } from './connections.ts';
import { readPolicyManifests } from './manifests.ts';

export interface ConnectionsOptions {
  readonly namespace: string;
  readonly json?: boolean;
  readonly wide?: boolean;
  readonly failOnOpen?: boolean;
}

/** Names on one line of the table; more are counted. */
const maxNames = 6;

function namesText(names: readonly string[], wide: boolean): string {
  if (wide || names.length <= maxNames) return names.join(', ');
  return `${names.slice(0, maxNames).join(', ')} and ${names.length - maxNames} more`;
}

/** Resolves with the exit code: 2 where manifests are wrong, 3 with --fail-on-open where a workload is open. */
export async function networkPolicyConnections(path: string, options: ConnectionsOptions): Promise<number> {
  const screen = openScreen(options.wide === true);
  const { cluster, workloads, problems } = readPolicyManifests(await readTexts(path), options.namespace);
  if (problems.length > 0) {
    if (options.json === true) screen.json({ ok: false, problems });
    else
      for (const problem of problems)
        screen.line(`${screen.style.paint('bad', placeText(problem))}  ${problem.message}`);
    return exitCodes.usage;
  }
  const result = permittedConnections(cluster, workloads);
  const open = result.workloads.filter(({ ingress }) => !ingress);
  if (options.json === true) screen.json({ ok: true, policies: cluster.policies.length, ...result });
  else {
    screen.table(
      [{ title: 'SOURCE' }, { title: 'DESTINATION' }, { title: 'PORTS' }],
      result.connections.map(({ sources, destinations, ports }) => [
        { text: namesText(sources, options.wide === true) },
        { text: namesText(destinations, options.wide === true) },
        { text: ports, tone: ports === 'everything' ? 'warn' : 'plain' },
      ]),
    );
    screen.note(
      `${workloads.length} workloads, ${cluster.policies.length} policies; ${open.length} of the workloads no policy isolates for ingress`,
    );
    const shared = result.workloads.filter(({ hostNetwork }) => hostNetwork).map(({ workload }) => workload);
    if (shared.length > 0)
      screen.note(
        `${namesText(shared, options.wide === true)}: on the network of the node, where Kubernetes leaves open what policies do; taken as traffic of the node`,
      );
  }
  return options.failOnOpen === true && open.length > 0 ? exitCodes.findings : exitCodes.ok;
}

/** `eastwest export networkpolicy`: our rules as manifests, one file for each namespace. */
import { mkdir, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { exportNetworkPolicies, type NetworkPolicyObject } from '../../lib/enforce/networkpolicy.ts';
import { World } from '../../lib/enforce/world.ts';
import { exitCodes, OperatorError } from '../../lib/runtime/exit.ts';
import { nearest } from '../../lib/runtime/nearest.ts';
import { openScreen, type Screen } from '../ask/screen.ts';
import { type InventoryOptions, inventoryEvents } from './inventory.ts';
import { policyOf } from './policy.ts';

export interface NetworkPolicyCommandOptions extends InventoryOptions {
  readonly namespace?: readonly string[];
  readonly network?: readonly string[];
  readonly output?: string;
  readonly json?: boolean;
  readonly strict?: boolean;
}

/** How often it is said how far an export is, ms. */
const progressMs = 2_000;
/** Files that an earlier export wrote are told by their end. */
const ending = '.networkpolicies.yaml';

export function manifestText(policies: readonly NetworkPolicyObject[]): string {
  return policies.map((policy) => stringify(policy, { lineWidth: 0 })).join('---\n');
}

/** Those that were named, or all whose pods a profile labels. @throws {OperatorError} for one that nobody knows */
export function chosenNamespaces(world: World, cluster: string, named: readonly string[]): string[] {
  const known = world.namespaces(cluster);
  for (const name of named) {
    if (known.includes(name)) continue;
    const near = nearest(name, known);
    throw new OperatorError(
      `--namespace ${name}: the inventory has no such namespace in cluster ${cluster}${near === undefined ? '' : `; did you mean ${near}?`}`,
      exitCodes.usage,
    );
  }
  if (named.length > 0) return [...new Set(named)].sort();
  const labelled = known.filter((name) => {
    const profile = world.profileOf(cluster, name);
    return profile !== null && profile.managed !== false;
  });
  if (labelled.length > 0) return labelled;
  throw new OperatorError(
    `no namespace of cluster ${cluster} that the inventory has is labelled by a profile: name the cluster with --cluster, or namespaces with --namespace`,
    exitCodes.usage,
  );
}

async function writeFiles(folder: string, policies: readonly NetworkPolicyObject[]): Promise<string[]> {
  await mkdir(folder, { recursive: true });
  const files = [...Map.groupBy(policies, ({ metadata }) => metadata.namespace)].map(
    ([namespace, own]) => [`${namespace}${ending}`, manifestText(own)] as const,
  );
  // What an export before has left would go on being applied.
  const names = new Set<string>(files.map(([name]) => name));
  for (const name of await readdir(folder))
    if (name.endsWith(ending) && !names.has(name)) await rm(join(folder, name));
  for (const [name, text] of files) await writeFile(join(folder, name), text);
  return [...names];
}

/** Resolves with the exit code: 3 with --strict where not all could be exported. */
export async function exportNetworkPolicyCommand(
  folder: string | undefined,
  options: NetworkPolicyCommandOptions,
): Promise<number> {
  const screen = openScreen(false);
  const { cluster, output } = options;
  const document = await policyOf(folder, options.url);
  const world = new World(document, await inventoryEvents(options), Date.now());
  const namespaces = chosenNamespaces(world, cluster, options.namespace ?? []);
  const { policies, remarks } = exportFor(
    world,
    { cluster, namespaces, networks: options.network ?? [] },
    progressTo(screen),
  );
  const files = output === undefined ? [] : await writeFiles(output, policies);
  if (options.json === true) screen.json({ policies, remarks, files });
  else if (output === undefined) process.stdout.write(manifestText(policies));
  else screen.line(`${policies.length} policies for ${namespaces.length} namespaces in ${output}`);
  for (const remark of remarks) screen.note(remark);
  return options.strict === true && remarks.length > 0 ? exitCodes.findings : exitCodes.ok;
}

/** Says how far it is, every two seconds. */
function progressTo(screen: Screen): (done: number, of: number) => void {
  let toldMs = Date.now();
  return (done, of) => {
    if (Date.now() - toldMs < progressMs) return;
    toldMs = Date.now();
    screen.note(`${done} of ${of} namespaces`);
  };
}

function exportFor(
  ...given: Parameters<typeof exportNetworkPolicies>
): ReturnType<typeof exportNetworkPolicies> {
  try {
    return exportNetworkPolicies(...given);
  } catch (error) {
    if (error instanceof RangeError) throw new OperatorError(error.message, exitCodes.usage);
    throw error;
  }
}

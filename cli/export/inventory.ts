/** The inventory that exports resolve labels with: from files, or from a running Eastwest. */
import { Compile } from 'typebox/compile';
import { exitCodes, OperatorError } from '../../lib/runtime/exit.ts';
import { InventoryEvent } from '../../schemas/inventory-event.ts';
import { carryRules } from '../../services/kubelink/manifests/common.ts';
import { readHostsFile } from '../../services/kubelink/sources/hosts.ts';
import { readManifests } from '../../services/kubelink/sources/manifests.ts';
import { openClient } from '../ask/client.ts';
import { manifestEndings, readTexts } from '../manifests/files.ts';

export interface InventoryOptions {
  readonly inventory?: readonly string[];
  readonly url: string;
  /** Name of the cluster that manifests are of. */
  readonly cluster: string;
}

const inventoryEvent = Compile(InventoryEvent);
const inventoryEndings = [...manifestEndings, '.csv', '.jsonl'];
const carryAll = carryRules([], ['*']);

function readLines(text: string, file: string, problems: string[]): InventoryEvent[] {
  return text.split('\n').flatMap((line, i) => {
    if (line.trim() === '') return [];
    let event: unknown;
    try {
      event = JSON.parse(line);
    } catch (error) {
      problems.push(`${file}:${i + 1}: not JSON: ${error instanceof Error ? error.message : String(error)}`);
      return [];
    }
    if (inventoryEvent.Check(event)) return [event];
    problems.push(`${file}:${i + 1}: not an inventory event (see schemas/inventory-event.ts)`);
    return [];
  });
}

/** Whether a file holds Kubernetes objects, not hosts (which have kinds too, but no version). */
function isManifest(text: string): boolean {
  return /^\s*(- )?"?apiVersion"?\s*:/m.test(text);
}

function readFile(file: string, text: string, cluster: string, problems: string[]): InventoryEvent[] {
  if (file.endsWith('.jsonl')) return readLines(text, file, problems);
  const isHosts = file.toLowerCase().endsWith('.csv') || !isManifest(text);
  const contents = isHosts ? readHostsFile(text, file) : readManifests(text, cluster, carryAll, Date.now());
  for (const { message } of contents.malformed) problems.push(`${file}: ${message}`);
  return [...contents.entities.values()].map(({ event }) => event);
}

/** @throws {OperatorError} naming every problem by file and place */
async function readInventory(paths: readonly string[], cluster: string): Promise<InventoryEvent[]> {
  const problems: string[] = [];
  const events: InventoryEvent[] = [];
  for (const path of paths)
    for (const [file, text] of await readTexts(path, inventoryEndings))
      events.push(...readFile(file, text, cluster, problems));
  if (problems.length > 0)
    throw new OperatorError(['the inventory is wrong:', ...problems].join('\n'), exitCodes.usage);
  return events;
}

/** Present events from files where any are named, else from the API. */
export async function inventoryEvents({
  inventory,
  url,
  cluster,
}: InventoryOptions): Promise<InventoryEvent[]> {
  if (inventory !== undefined && inventory.length > 0) return readInventory(inventory, cluster);
  const events: InventoryEvent[] = [];
  // The API's own contract.
  for await (const line of openClient(url).lines('/api/v1/inventory', { format: 'jsonl' }))
    events.push(JSON.parse(line) as InventoryEvent);
  return events;
}

/** `eastwest export nftables`: what the policy says of one host, for nft. */
import { writeFile } from 'node:fs/promises';
import { exportNftables } from '../../lib/enforce/nftables.ts';
import { World, type WorldHost } from '../../lib/enforce/world.ts';
import { formatAddress, parseAddress } from '../../lib/net/address.ts';
import { exitCodes, OperatorError } from '../../lib/runtime/exit.ts';
import { nearest } from '../../lib/runtime/nearest.ts';
import { openScreen } from '../ask/screen.ts';
import { type InventoryOptions, inventoryEvents } from './inventory.ts';
import { policyOf } from './policy.ts';

export interface NftablesCommandOptions extends InventoryOptions {
  readonly host: string;
  readonly default: 'drop' | 'accept';
  readonly network?: readonly string[];
  readonly output?: string;
  readonly json?: boolean;
  readonly strict?: boolean;
}

/** The host that a word means: name, group/name, uid or address. @throws {OperatorError} where none or several are. */
export function hostMeant(hosts: readonly WorldHost[], word: string): WorldHost {
  const bytes = parseAddress(word);
  const address = bytes === null ? null : formatAddress(bytes);
  const meant = hosts.filter(({ event, addresses }) =>
    address === null
      ? [event.name, event.uid, `${event.namespace}/${event.name}`].includes(word)
      : addresses.some(({ ip }) => formatAddress(ip) === address),
  );
  const [only] = meant;
  if (only !== undefined && meant.length === 1) {
    if (only.addresses.length > 0) return only;
    throw new OperatorError(`--host ${word}: the inventory knows no address of it`, exitCodes.usage);
  }
  if (only !== undefined)
    throw new OperatorError(
      `--host ${word}: ${meant.length} hosts are meant: name one of ${meant.map(({ event }) => event.uid).join(', ')}`,
      exitCodes.usage,
    );
  const near = nearest(
    word,
    hosts.map(({ event }) => event.name),
  );
  throw new OperatorError(
    `--host ${word}: the inventory has no VM, host or node of this name or address${near === undefined ? '' : `; did you mean ${near}?`}`,
    exitCodes.usage,
  );
}

/** Resolves with the exit code: 3 with --strict where not all could be exported. */
export async function exportNftablesCommand(
  folder: string | undefined,
  options: NftablesCommandOptions,
): Promise<number> {
  const screen = openScreen(false);
  const document = await policyOf(folder, options.url);
  const nowMs = Date.now();
  const world = new World(document, await inventoryEvents(options), nowMs);
  const host = hostMeant(world.hosts(), options.host);
  const result = exportNftables(
    world,
    host,
    { default: options.default, networks: options.network ?? [] },
    nowMs,
  );
  if (options.output !== undefined) await writeFile(options.output, result.text);
  if (options.json === true) screen.json({ host: host.event.name, ...result });
  else if (options.output === undefined) process.stdout.write(result.text);
  for (const remark of result.remarks) screen.note(remark);
  return options.strict === true && result.remarks.length > 0 ? exitCodes.findings : exitCodes.ok;
}

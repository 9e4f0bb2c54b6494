/** `eastwest workloads put`: puts the hosts of a file over HTTP. */
import { readFileSync } from 'node:fs';
import { exitCodes, OperatorError } from '../../lib/runtime/exit.ts';
import { parseDocuments } from '../../services/kubelink/documents.ts';
import { csvHosts } from '../../services/kubelink/sources/csv-hosts.ts';
import type { AskOptions } from './options.ts';
import { start } from './start.ts';
import { countText } from './words.ts';

export interface PutOptions extends AskOptions {
  readonly source?: string;
  readonly replace?: boolean;
  readonly ttl?: string;
  readonly token?: string;
}

interface PutAnswer {
  readonly source: string;
  readonly put: number;
  readonly removed: number;
  readonly replace: boolean;
  readonly until: string | null;
}

/** What a file asks to put: a request, or parts of one. */
type Asked = Readonly<Record<string, unknown>> & { readonly workloads: readonly unknown[] };

function unusable(path: string, what: string): OperatorError {
  return new OperatorError(`${path}: ${what}`, exitCodes.usage);
}

function isMapping(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** A host of a file is known by its id, or else by its name. */
function withId(entry: unknown): unknown {
  return isMapping(entry) && !('id' in entry) && 'name' in entry ? { id: entry.name, ...entry } : entry;
}

function readCsv(text: string, path: string): Asked {
  const { problems, entries } = csvHosts(text);
  const workloads: unknown[] = [];
  const wrong = [...problems];
  for (const one of entries) {
    if ('entry' in one) workloads.push(withId(one.entry));
    else wrong.push(`line ${one.line}: ${one.message}`);
  }
  const [first] = wrong;
  if (first !== undefined) {
    throw unusable(path, `${first}${wrong.length > 1 ? ` (and ${wrong.length - 1} more)` : ''}`);
  }
  return { workloads };
}

/** The request of a file: one in JSON or YAML, or the hosts of a hosts file (`.csv` as CSV). */
export function readPut(text: string, path: string): Asked {
  if (path.toLowerCase().endsWith('.csv')) return readCsv(text, path);
  const { documents, problems } = parseDocuments(text);
  const [problem] = problems;
  if (problem !== undefined) throw unusable(path, `${problem.place}: ${problem.message}`);
  const [document] = documents;
  if (documents.length !== 1 || document === undefined || !isMapping(document.value)) {
    throw unusable(path, 'expected one document with workloads or hosts');
  }
  const { hosts, network, ...rest } = document.value;
  const { workloads } = rest;
  if (Array.isArray(workloads) && hosts === undefined && network === undefined) return { ...rest, workloads };
  if (!Array.isArray(hosts)) throw unusable(path, 'expected a list of workloads or hosts');
  const other = Object.keys(rest)[0];
  if (other !== undefined) {
    throw unusable(path, `${other} cannot be put over HTTP; a source of kind hosts reads them from a file`);
  }
  const inNetwork = (entry: unknown): unknown =>
    isMapping(entry) && network !== undefined ? { network, ...entry } : entry;
  return { workloads: hosts.map((entry) => inNetwork(withId(entry))) };
}

export async function put(path: string, options: PutOptions): Promise<void> {
  const { client, screen } = start(options);
  let text: string;
  try {
    text = readFileSync(path === '-' ? 0 : path, 'utf8');
  } catch (error) {
    throw unusable(path, error instanceof Error ? error.message : String(error));
  }
  const { source, replace, ttl, token } = options;
  const answer = await client.put<PutAnswer>(
    '/api/v1/workloads',
    {
      ...readPut(text, path),
      ...(source === undefined ? {} : { source }),
      ...(replace === undefined ? {} : { replace }),
      ...(ttl === undefined ? {} : { ttl }),
    },
    token,
  );
  if (options.json === true) return screen.json(answer);
  const removed = answer.removed > 0 ? `, ${countText(answer.removed)} removed` : '';
  const others = answer.replace ? '; whatever else it put before has ended' : '';
  const end = answer.until === null ? '' : `; they end at ${answer.until} unless they are put again`;
  screen.line(`${answer.source}: ${countText(answer.put)} put${removed}${others}${end}`);
}

/** Checks the body of `PUT /api/v1/workloads` and turns it into messages for the topic; the first wrong field is named. */
import { Compile } from 'typebox/compile';
import type { OutgoingMessage } from '../../../lib/bus/bus.ts';
import { formatAddress, parseAddress } from '../../../lib/net/address.ts';
import { nearest } from '../../../lib/runtime/nearest.ts';
import { defaultNetwork } from '../../../schemas/inventory-event.ts';
import {
  PutEntry,
  type PutReplaced,
  PutRequest,
  type PutWorkload,
  putKey,
  RemoveEntry,
  replacedKey,
} from '../../../schemas/workload-put.ts';
import { ProblemError } from '../problem.ts';
import { parseDurationSeconds } from '../time.ts';

const checkRequest = Compile(PutRequest);
const checkEntry = Compile(PutEntry);
const checkRemove = Compile(RemoveEntry);

/** Longest lifetime, seconds: ten years. */
const maxTtlSeconds = 10 * 366 * 86_400;

/** What each key takes, in words. */
const expectations: Readonly<Record<string, string>> = {
  source: 'the name of the system that speaks, such as cmdb: letters, digits, dots and dashes, 63 at most',
  workloads: 'a list of workloads',
  replace: 'true or false',
  ttl: 'a lifetime such as 90s, 30m, 24h or 7d, or seconds; ten years at most',
  id: 'a text of 1 to 253 characters that stays the same and is unique in the estate',
  name: 'a text of 1 to 253 characters',
  kind: 'vm or host',
  group: 'a text',
  network: 'the name of a network, such as default',
  addresses:
    'a list of addresses, each such as "10.0.0.5", "2001:db8::5" or {"ip": "10.0.0.5", "network": "dc-west"}; 1024 at most',
  labels: 'texts by key, such as {"app": "ledger"}',
  annotations: 'texts by key',
  since: 'a time such as 2026-01-01T00:00:00Z',
  remove: 'true, and nothing but the id beside it',
};

export interface CheckedPut {
  readonly source: string;
  readonly putCount: number;
  readonly removedCount: number;
  readonly isReplacing: boolean;
  /** When what was put ends unless it is put again, ms; `null` for never. */
  readonly untilMs: number | null;
  /** In the order in which they have to be appended. */
  readonly messages: readonly OutgoingMessage[];
}

interface Failure {
  readonly keyword: string;
  readonly instancePath: string;
  readonly message: string;
  readonly params: unknown;
}

function wrong(field: string, what: string, expected: string): ProblemError {
  return new ProblemError('bad-body', `${field} ${what}; expected ${expected}`, {
    parameter: field,
    expected,
  });
}

function joined(base: string, part: string): string {
  if (/^\d+$/.test(part)) return `${base}[${part}]`;
  return base === '' ? part : `${base}.${part}`;
}

function shown(value: unknown): string {
  const text = JSON.stringify(value) ?? 'nothing';
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}

function valueAt(root: unknown, path: readonly string[]): unknown {
  let value = root;
  for (const part of path) {
    if (typeof value !== 'object' || value === null) return undefined;
    value = new Map<string, unknown>(Object.entries(value)).get(part);
  }
  return value;
}

function missingOf(failure: Failure): string | undefined {
  const { params } = failure;
  if (failure.keyword !== 'required' || typeof params !== 'object' || params === null) return undefined;
  if (!('requiredProperties' in params) || !Array.isArray(params.requiredProperties)) return undefined;
  return String(params.requiredProperties[0]);
}

/** Of all failures the deepest is the telling one: a union reports one for each of its variants. */
function problemOf(
  base: string,
  value: unknown,
  failures: readonly Failure[],
  keys: readonly string[],
): ProblemError {
  const depth = ({ instancePath }: Failure): number => instancePath.split('/').length;
  let telling: Failure | undefined;
  for (const failure of failures) {
    if (failure.keyword === 'anyOf' || failure.keyword === 'additionalProperties') continue;
    if (telling === undefined || depth(failure) > depth(telling)) telling = failure;
  }
  const path = (telling?.instancePath ?? '')
    .split('/')
    .slice(1)
    .map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~'));
  const missing = telling === undefined ? undefined : missingOf(telling);
  const field = [...path, ...(missing === undefined ? [] : [missing])].reduce(joined, base);
  const key = path[0] ?? missing ?? '';
  const expected = expectations[key] ?? 'an object';
  if (missing !== undefined) return wrong(field, 'is missing', expectations[missing] ?? expected);
  if (telling?.keyword === 'boolean') {
    const known = path.length === 1 ? keys : ['ip', 'network'];
    const near = nearest(path.at(-1) ?? '', known);
    const hint = near === undefined ? '' : ` (did you mean ${near}?)`;
    return wrong(field, `is not a known key${hint}`, `one of ${known.join(', ')}`);
  }
  const where = field === '' ? 'the body' : field;
  return wrong(where, `is ${shown(valueAt(value, path))}`, expected);
}

function checkedLabels(
  field: string,
  labels: Readonly<Record<string, string>> | undefined,
): Record<string, string> {
  if (labels !== undefined && '' in labels) throw wrong(field, 'has an empty key', expectations.labels ?? '');
  return { ...labels };
}

function timeOf(field: string, text: string | undefined, nowMs: number): number | undefined {
  if (text === undefined) return undefined;
  const timeMs = /^\d{4}-\d{2}-\d{2}/.test(text) ? Date.parse(text) : Number.NaN;
  if (!Number.isFinite(timeMs) || timeMs < 0)
    throw wrong(field, `is ${shown(text)}`, expectations.since ?? '');
  if (timeMs > nowMs) throw wrong(field, `is ${shown(text)}, which is yet to come`, 'a time in the past');
  return timeMs;
}

interface PutContext {
  readonly source: string;
  /** Name of the request. */
  readonly put: string;
  readonly putMs: number;
  readonly untilMs: number | null;
}

function workloadOf(at: string, entry: PutEntry, context: PutContext): PutWorkload {
  const { source, put, putMs, untilMs } = context;
  const addresses = entry.addresses.map((address, i) => {
    const isText = typeof address === 'string';
    const ip = isText ? address : address.ip;
    const bytes = parseAddress(ip);
    if (bytes === null) {
      const field = `${at}.addresses[${i}]${isText ? '' : '.ip'}`;
      throw wrong(field, `is ${shown(ip)}`, 'an IPv4 or IPv6 address');
    }
    const network = isText ? undefined : address.network;
    return { ip: formatAddress(bytes), network: network ?? entry.network ?? defaultNetwork };
  });
  const sinceMs = timeOf(`${at}.since`, entry.since, putMs);
  return {
    v: 1,
    source,
    put,
    putMs,
    ...(untilMs === null ? {} : { untilMs }),
    id: entry.id,
    name: entry.name ?? entry.id,
    kind: entry.kind ?? 'vm',
    group: entry.group ?? '',
    addresses,
    labels: checkedLabels(`${at}.labels`, entry.labels),
    annotations: checkedLabels(`${at}.annotations`, entry.annotations),
    ...(sinceMs === undefined ? {} : { sinceMs }),
  };
}

function isRemoval(entry: unknown): boolean {
  return typeof entry === 'object' && entry !== null && 'remove' in entry;
}

function ttlMsOf(ttl: PutRequest['ttl']): number | null {
  if (ttl === undefined) return null;
  const seconds = typeof ttl === 'number' ? ttl : parseDurationSeconds(ttl);
  if (seconds === null || seconds < 1 || seconds > maxTtlSeconds) {
    throw wrong('ttl', `is ${shown(ttl)}`, expectations.ttl ?? '');
  }
  return seconds * 1000;
}

function messageOf(key: string, value: PutWorkload | PutReplaced): OutgoingMessage {
  return { key, value: Buffer.from(JSON.stringify(value)) };
}

function checkFrame(body: unknown, maxWorkloads: number): { frame: PutRequest; entries: readonly unknown[] } {
  const entries: unknown = valueAt(body, ['workloads']);
  // Without the entries, each of which is checked by itself.
  const frame: unknown =
    typeof body === 'object' && body !== null && Array.isArray(entries) ? { ...body, workloads: [] } : body;
  if (!checkRequest.Check(frame)) {
    throw problemOf('', frame, checkRequest.Errors(frame), Object.keys(PutRequest.properties));
  }
  const list = Array.isArray(entries) ? entries : [];
  if (list.length > maxWorkloads) {
    throw new ProblemError(
      'too-large',
      `workloads has ${list.length} entries, over ${maxWorkloads} (query.put.maxWorkloads); send several requests`,
      { parameter: 'workloads' },
    );
  }
  return { frame, entries: list };
}

/**
 * The messages that a body becomes.
 * @param put name of the request, unlike any other
 * @throws {ProblemError} naming the first field that is wrong; nothing of the body counts then.
 */
export function checkPut(
  body: unknown,
  limits: { readonly maxWorkloads: number },
  put: string,
  nowMs: number,
): CheckedPut {
  const { frame, entries } = checkFrame(body, limits.maxWorkloads);
  const { source } = frame;
  const ttlMs = ttlMsOf(frame.ttl);
  const context: PutContext = { source, put, putMs: nowMs, untilMs: ttlMs === null ? null : nowMs + ttlMs };
  const named = new Map<string, number>();
  const messages: OutgoingMessage[] = [];
  let putCount = 0;
  entries.forEach((entry, i) => {
    const at = `workloads[${i}]`;
    let id: string;
    if (isRemoval(entry)) {
      if (!checkRemove.Check(entry))
        throw problemOf(at, entry, checkRemove.Errors(entry), Object.keys(RemoveEntry.properties));
      ({ id } = entry);
      messages.push({ key: putKey(source, id), value: null });
    } else {
      if (!checkEntry.Check(entry))
        throw problemOf(at, entry, checkEntry.Errors(entry), [...Object.keys(PutEntry.properties), 'remove']);
      ({ id } = entry);
      messages.push(messageOf(putKey(source, id), workloadOf(at, entry, context)));
      putCount++;
    }
    const before = named.get(id);
    if (before !== undefined) {
      throw wrong(`${at}.id`, `is ${shown(id)}, as in workloads[${before}]`, 'each workload once');
    }
    named.set(id, i);
  });
  const removedCount = messages.length - putCount;
  const isReplacing = frame.replace === true;
  // Last, so that a request that is cut short ends nothing.
  if (isReplacing) messages.push(messageOf(replacedKey(source), { v: 1, source, put, putMs: nowMs }));
  return { source, putCount, removedCount, isReplacing, untilMs: context.untilMs, messages };
}

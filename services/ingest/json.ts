/** Turns JSON batches (`schemas/flow-batch-json.ts`) into flow batches; every wrong value is named with its place. */
import { createHash } from 'node:crypto';
import Type from 'typebox';
import { Compile } from 'typebox/compile';
import { parseWireAddress } from '../../lib/net/address.ts';
import { nearest } from '../../lib/runtime/nearest.ts';
import { BatchStrings, type Flow, type FlowBatch } from '../../lib/wire/flow-batch.ts';
import { JsonFlow, JsonFlowBatch, protocolNumbers } from '../../schemas/flow-batch-json.ts';
import { defaultNetwork } from '../../schemas/inventory-event.ts';
import { type FieldError, RefusedError } from './refusal.ts';

/** Most wrong values that one answer names. */
const maxFieldErrors = 20;

const one = Compile(JsonFlowBatch);
const many = Compile(Type.Array(JsonFlowBatch));
const flowFields = Object.keys(JsonFlow.properties);
const batchFields = Object.keys(JsonFlowBatch.properties);

export interface JsonLimits {
  readonly maxBatches: number;
  readonly maxFlowsPerBatch: number;
}

/** The batches of a JSON body. @throws {RefusedError} */
export function readJsonBatches(body: Buffer, limits: JsonLimits): FlowBatch[] {
  let document: unknown;
  try {
    document = JSON.parse(body.toString('utf8'));
  } catch (error) {
    throw new RefusedError(
      'undecodable',
      `the body is not JSON: ${error instanceof Error ? error.message : error}`,
    );
  }
  checkCounts(document, limits);
  if (Array.isArray(document)) {
    if (!many.Check(document)) throw refusedShape(many.Errors(document), document);
    return document.map((batch, i) => toFlowBatch(batch, `[${i}].`));
  }
  if (!one.Check(document)) throw refusedShape(one.Errors(document), document);
  return [toFlowBatch(document, '')];
}

/** Looks at the counts first, so that a huge list is refused before each of its members is checked. */
function checkCounts(document: unknown, limits: JsonLimits): void {
  const batches: readonly unknown[] = Array.isArray(document) ? document : [document];
  if (batches.length > limits.maxBatches) {
    throw new RefusedError(
      'too-many-batches',
      `the list has ${batches.length} batches, over ${limits.maxBatches}`,
    );
  }
  for (const [i, batch] of batches.entries()) {
    if (typeof batch !== 'object' || batch === null || !('flows' in batch) || !Array.isArray(batch.flows))
      continue;
    if (batch.flows.length > limits.maxFlowsPerBatch) {
      const path = Array.isArray(document) ? `[${i}].flows` : 'flows';
      const message = `has ${batch.flows.length} flows, over ${limits.maxFlowsPerBatch} (ingest.maxFlowsPerBatch)`;
      throw new RefusedError('too-many-flows', `${path} ${message}`, [{ path, message }]);
    }
  }
}

interface ShapeError {
  readonly keyword: string;
  readonly schemaPath: string;
  readonly instancePath: string;
  readonly params: object;
  readonly message: string;
}

function refusedShape(errors: readonly ShapeError[], document: unknown): RefusedError {
  const fields = new Map<string, FieldError>();
  for (const error of errors) {
    for (const field of fieldErrors(error, document)) {
      if (fields.size < maxFieldErrors && !fields.has(field.path)) fields.set(field.path, field);
    }
  }
  const list = [...fields.values()];
  const first = list[0];
  const detail = first === undefined ? 'the body is no flow batch' : `${first.path} ${first.message}`;
  return new RefusedError('bad-value', detail, list);
}

function fieldErrors(error: ShapeError, document: unknown): FieldError[] {
  const parts = error.instancePath.split('/').slice(1);
  const path = pathOf(parts);
  const inside = (name: string): string => (path === '' ? name : `${path}.${name}`);
  const names = (key: string): string[] => {
    const value: unknown = Reflect.get(error.params, key);
    return Array.isArray(value) ? value.map(String) : [];
  };
  if (error.keyword === 'required') {
    return names('requiredProperties').map((name) => ({ path: inside(name), message: 'is missing' }));
  }
  if (error.keyword === 'additionalProperties') {
    return names('additionalProperties').map((name) => {
      const right = nearest(name, parts.includes('flows') ? flowFields : batchFields);
      return {
        path: inside(name),
        message: `is no field${right === undefined ? '' : `; the nearest is ${right}`}`,
      };
    });
  }
  // The member that may not be there, already said by its parent.
  if (error.message === 'schema is false') return [];
  return [{ path: path || 'the body', message: `${shown(valueAt(document, parts))}${expectation(parts)}` }];
}

function pathOf(parts: readonly string[]): string {
  return parts
    .map((part) => (/^\d+$/.test(part) ? `[${part}]` : `.${part}`))
    .join('')
    .replace(/^\./, '');
}

function valueAt(document: unknown, parts: readonly string[]): unknown {
  let value = document;
  for (const part of parts) {
    if (typeof value !== 'object' || value === null) return undefined;
    value = Reflect.get(value, part);
  }
  return value;
}

function shown(value: unknown): string {
  if (Array.isArray(value)) return 'is a list';
  if (typeof value === 'object' && value !== null) return 'is an object';
  const text = JSON.stringify(value) ?? 'nothing';
  return `is ${text.length > 60 ? `${text.slice(0, 57)}...` : text}`;
}

function expectation(parts: readonly string[]): string {
  const name = parts.at(-1) ?? '';
  const properties: Readonly<Record<string, object>> = parts.includes('flows')
    ? JsonFlow.properties
    : JsonFlowBatch.properties;
  const schema = Object.hasOwn(properties, name) ? properties[name] : undefined;
  if (schema === undefined) return ', must be an object';
  const keyword = (key: string): unknown => Reflect.get(schema, key);
  const range =
    typeof keyword('minimum') === 'number' && typeof keyword('maximum') === 'number'
      ? `, a whole number from ${keyword('minimum')} to ${keyword('maximum')}`
      : '';
  const description = keyword('description');
  return `, must be ${typeof description === 'string' ? description : `a ${keyword('type')}`}${range}`;
}

/** ISO 8601 with a time and a zone, so that it means one moment only. */
const isoTime = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}:?\d{2})$/;

class Reader {
  readonly #prefix: string;

  constructor(prefix: string) {
    this.#prefix = prefix;
  }

  refuse(field: string, message: string): RefusedError {
    const path = this.#prefix + field;
    return new RefusedError('bad-value', `${path} ${message}`, [{ path, message }]);
  }

  time(field: string, value: number | string): number {
    if (typeof value === 'number') return value;
    const ms = isoTime.test(value) ? Date.parse(value) : Number.NaN;
    if (Number.isNaN(ms)) {
      throw this.refuse(field, `${shown(value)}, must be ms since the epoch or ISO 8601 with its zone`);
    }
    return ms;
  }

  address(field: string, text: string): Uint8Array {
    const bytes = parseWireAddress(text);
    if (bytes === null) throw this.refuse(field, `${shown(text)}, must be an IPv4 or IPv6 address`);
    return bytes;
  }
}

interface Timed {
  readonly flow: JsonFlow;
  readonly startMs: number;
  readonly durationMs: number;
}

function timesOf(flow: JsonFlow, path: string, read: Reader): Timed {
  const startMs = read.time(`${path}.start`, flow.start);
  if (flow.end === undefined) return { flow, startMs, durationMs: flow.durationMs ?? 0 };
  if (flow.durationMs !== undefined)
    throw read.refuse(`${path}.durationMs`, 'stands beside end; give one of them');
  const durationMs = read.time(`${path}.end`, flow.end) - startMs;
  if (durationMs < 0) throw read.refuse(`${path}.end`, 'is before start');
  return { flow, startMs, durationMs };
}

function toFlow(
  { flow, startMs, durationMs }: Timed,
  path: string,
  fromMs: number,
  read: Reader,
  strings: BatchStrings,
): Flow {
  return {
    startMs: startMs - fromMs,
    durationMs,
    sourceAddress: read.address(`${path}.sourceAddress`, flow.sourceAddress),
    sourcePort: flow.sourcePort ?? 0,
    destinationAddress: read.address(`${path}.destinationAddress`, flow.destinationAddress),
    destinationPort: flow.destinationPort ?? 0,
    protocol: typeof flow.protocol === 'number' ? flow.protocol : (protocolNumbers[flow.protocol] ?? 0),
    originalDestinationAddress:
      flow.originalDestinationAddress === undefined
        ? new Uint8Array(0)
        : read.address(`${path}.originalDestinationAddress`, flow.originalDestinationAddress),
    originalDestinationPort: flow.originalDestinationPort ?? 0,
    reporter: flow.reporter ?? 'source',
    bytesForward: flow.bytesForward ?? 0,
    bytesReverse: flow.bytesReverse ?? 0,
    packetsForward: flow.packetsForward ?? 0,
    packetsReverse: flow.packetsReverse ?? 0,
    connectionCount: flow.connectionCount ?? 1,
    flags: flow.flags ?? 0,
    state: flow.state ?? 'unknown',
    action: flow.action ?? 'unknown',
    actionReason: strings.index(flow.actionReason ?? ''),
    dnsName: strings.index(flow.dnsName ?? ''),
    processName: strings.index(flow.processName ?? ''),
    sourceHint: strings.index(flow.sourceHint ?? ''),
    destinationHint: strings.index(flow.destinationHint ?? ''),
  };
}

/** Boot and sequence of a batch that has none: its content, so that the same document sent twice counts once. */
function contentId(batch: JsonFlowBatch): { bootId: string; sequence: number } {
  const hash = createHash('sha256').update(JSON.stringify(batch)).digest('hex').slice(0, 32);
  return { bootId: `content-${hash}`, sequence: 1 };
}

function toFlowBatch(batch: JsonFlowBatch, prefix: string): FlowBatch {
  const read = new Reader(prefix);
  const { bootId, sequence } = batch;
  if ((bootId === undefined) !== (sequence === undefined)) {
    throw read.refuse(
      bootId === undefined ? 'bootId' : 'sequence',
      'is missing; bootId and sequence go together',
    );
  }
  if (batch.clockOffsetMs !== undefined && batch.clockErrorMs === undefined) {
    throw read.refuse('clockErrorMs', 'is missing; clockOffsetMs counts only with it');
  }
  const timed = batch.flows.map((flow, i) => timesOf(flow, `flows[${i}]`, read));
  const span = { fromMs: Number.POSITIVE_INFINITY, toMs: 0 };
  for (const { startMs, durationMs } of timed) {
    span.fromMs = Math.min(span.fromMs, startMs);
    span.toMs = Math.max(span.toMs, startMs + durationMs);
  }
  if (timed.length === 0 && (batch.observedFrom === undefined || batch.observedTo === undefined)) {
    throw read.refuse('observedFrom', 'and observedTo are needed where there are no flows');
  }
  const fromMs =
    batch.observedFrom === undefined ? span.fromMs : read.time('observedFrom', batch.observedFrom);
  const toMs = batch.observedTo === undefined ? span.toMs : read.time('observedTo', batch.observedTo);
  const strings = new BatchStrings();
  const cluster = batch.cluster ?? '';
  return {
    agentId: batch.agentId,
    ...(bootId !== undefined && sequence !== undefined ? { bootId, sequence } : contentId(batch)),
    cluster,
    node: batch.node ?? '',
    network: batch.network ?? (cluster || defaultNetwork),
    sourceKind: batch.sourceKind ?? 'json',
    observedFromMs: fromMs,
    observedToMs: Math.max(fromMs, toMs),
    sourceDroppedCount: batch.sourceDroppedCount ?? 0,
    samplingRate: batch.samplingRate ?? 1,
    clockOffsetMs: batch.clockOffsetMs ?? 0,
    clockErrorMs: batch.clockErrorMs ?? -1,
    flows: timed.map((flow, i) => toFlow(flow, `flows[${i}]`, fromMs, read, strings)),
    strings: strings.list,
  };
}

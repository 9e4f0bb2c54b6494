/** From a request body to checked batches of the current schema: all of them, or the reason why none. */

import { type FlowColumns, makeFlowColumns } from '../../lib/wire/columns.ts';
import { ContainerTooLargeError, isContainer, readContainer } from '../../lib/wire/container.ts';
import { normalise, type WireProblem } from '../../lib/wire/evolve.ts';
import { encodeFlowBatch } from '../../lib/wire/flow-batch.ts';
import { type BatchLimits, type CheckedBatch, checkBatch } from './check.ts';
import { readJsonBatches } from './json.ts';
import { RefusedError, refusedBatch } from './refusal.ts';

/** What a body is: one framed batch, a container file of them, or JSON. */
export const formats = ['framed', 'container', 'json'] as const;
export type Format = (typeof formats)[number];

export const framedType = 'application/vnd.eastwest.flow-batch+avro';

const formatOfType: Readonly<Record<string, Format>> = {
  [framedType]: 'framed',
  'avro/binary': 'container',
  'application/avro': 'container',
  'application/vnd.apache.avro': 'container',
  'application/json': 'json',
};

/** The format that a Content-Type header names. @throws {RefusedError} */
export function formatOf(header: string | undefined): Format {
  const type = (header ?? '').split(';')[0]?.trim().toLowerCase() ?? '';
  const format = Object.hasOwn(formatOfType, type) ? formatOfType[type] : undefined;
  if (format !== undefined) return format;
  const known = Object.keys(formatOfType).join(', ');
  throw new RefusedError(
    'unsupported-type',
    `${type === '' ? 'no content-type' : `content-type ${type}`} is given; known are ${known}`,
  );
}

export interface ReadLimits extends BatchLimits {
  readonly maxBatchesPerRequest: number;
  readonly maxBatchBytes: number;
}

/** Makes the reader of one door; it keeps scratch columns, so calls must not overlap (they are synchronous). */
export function makeBatchReader(
  limits: ReadLimits,
): (body: Buffer, format: Format, nowMs: number) => readonly CheckedBatch[] {
  const scratch: FlowColumns = makeFlowColumns(limits.maxFlowsPerBatch);
  return (body, format, nowMs) => {
    const messages = messagesOf(body, format, limits);
    const several = messages.length > 1;
    return messages.map((message, i) =>
      checkBatch(message, scratch, limits, nowMs, several ? `[${i}].` : ''),
    );
  };
}

function messagesOf(body: Buffer, format: Format, limits: ReadLimits): readonly Uint8Array[] {
  switch (format) {
    case 'json': {
      const { maxBatchesPerRequest: maxBatches, maxFlowsPerBatch } = limits;
      return readJsonBatches(body, { maxBatches, maxFlowsPerBatch }).map(encodeFlowBatch);
    }
    case 'container':
      return readContainerBody(body, limits);
    case 'framed': {
      // A container sent under the wrong name says itself what it is.
      if (isContainer(body)) return readContainerBody(body, limits);
      const message = normalise(body);
      if ('error' in message) throw refusedWire(message.error);
      return [message.ok];
    }
  }
}

function readContainerBody(body: Buffer, limits: ReadLimits): readonly Uint8Array[] {
  try {
    const read = readContainer(body, {
      maxBatches: limits.maxBatchesPerRequest,
      maxBytes: limits.maxBatchBytes,
    });
    if ('error' in read) throw refusedWire(read.error);
    return read.ok;
  } catch (error) {
    if (error instanceof ContainerTooLargeError) {
      throw new RefusedError(
        error.limit === 'batches' ? 'too-many-batches' : 'body-too-large',
        error.message,
      );
    }
    throw error;
  }
}

function refusedWire(problem: WireProblem): RefusedError {
  return refusedBatch(problem.cause, problem.field, problem.message);
}

/** One object of the API server as far as it is kept: read at once, so that the object itself can be forgotten. */
import type { ConversionContext } from '../../manifests/common.ts';
import { type Conversion, convertObject } from '../../manifests/convert.ts';
import type { Kind, ObjectHead } from './resources.ts';

export interface Converted extends ObjectHead {
  /** `null`: left out. `known`: in the version that is known already. */
  readonly conversion: Conversion | 'known' | null;
  /** When it was last written, ms, cut to the second; 0 where it does not say. Of a removal the server keeps no note. */
  readonly writtenMs: number;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The newest note of a write; notes that do not parse are none, and those of the status of a node are heartbeats. */
function writtenMs(kind: Kind, object: Record<string, unknown>): number {
  const { metadata } = object;
  const fields = isRecord(metadata) ? metadata.managedFields : null;
  let newestMs = 0;
  for (const field of Array.isArray(fields) ? fields : []) {
    if (!isRecord(field) || (kind === 'Node' && field.subresource === 'status')) continue;
    const time = typeof field.time === 'string' ? Date.parse(field.time) : 0;
    if (time > newestMs) newestMs = time;
  }
  return newestMs;
}

/** Reads an object. Never throws for what it holds. Objects of a typed list have no kind of their own. */
export function converted(
  kind: Kind,
  head: ObjectHead,
  object: Record<string, unknown>,
  context: ConversionContext,
): Converted {
  return {
    ...head,
    conversion: convertObject({ ...object, kind }, context),
    writtenMs: writtenMs(kind, object),
  };
}

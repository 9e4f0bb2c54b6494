/** One object of the API server as far as it is kept: read at once, so that the object itself can be forgotten. */
import { type ConversionContext, timeOf } from '../../manifests/common.ts';
import { type Conversion, convertObject } from '../../manifests/convert.ts';
import { PodObject } from '../../manifests/objects.ts';
import { certainSinceMs } from '../../manifests/pod.ts';
import { checker, FieldError } from '../../validate.ts';
import type { Kind, ObjectHead } from './resources.ts';

const checkPod = checker(PodObject);

export interface Converted extends ObjectHead {
  /** `null`: left out. `known`: in the version that is known already. */
  readonly conversion: Conversion | 'known' | null;
  /** When it was last written, ms, cut to the second; 0 where it does not say. */
  readonly writtenMs: number;
  /** From when on it had its addresses for certain, ms; `null` where that cannot be told. */
  readonly certainMs: number | null;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The newest note of a write; notes that do not parse are none. */
function writtenMs(object: Record<string, unknown>): number {
  const { metadata } = object;
  const fields = isRecord(metadata) ? metadata.managedFields : null;
  let newestMs = 0;
  for (const field of Array.isArray(fields) ? fields : []) {
    const time = isRecord(field) && typeof field.time === 'string' ? Date.parse(field.time) : 0;
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
  const conversion = convertObject({ ...object, kind }, context);
  return {
    ...head,
    conversion,
    writtenMs: writtenMs(object),
    certainMs: certainMs(kind, object, conversion),
  };
}

function certainMs(kind: Kind, object: Record<string, unknown>, conversion: Conversion): number | null {
  if (conversion.outcome !== 'entity') return null;
  if (kind === 'Pod') return podCertainMs(object);
  const { metadata } = object;
  const created = isRecord(metadata) ? metadata.creationTimestamp : undefined;
  return typeof created === 'string' ? timeOf(created, 'metadata.creationTimestamp') + 1000 : null;
}

function podCertainMs(object: Record<string, unknown>): number | null {
  const pod = checkPod(object);
  try {
    return pod.ok ? certainSinceMs(pod.value) : null;
  } catch (error) {
    if (error instanceof FieldError) return null;
    throw error;
  }
}

/**
 * The JSON Schema (and types) of `PUT /api/v1/workloads`, and of what it leaves on the topic `inventory.put`.
 *
 * A request becomes one message for each entry, keyed by {@link putKey}: a {@link PutWorkload}, or a tombstone for an
 * entry that is removed. A request with `replace` ends with a {@link PutReplaced} keyed by {@link replacedKey}: whatever
 * of the source stands before it on the topic and carries another `put` is no more.
 */
import Type, { type Static } from 'typebox';
import { HostEntry, network } from './hosts-file.ts';

const closed = { additionalProperties: false };

/** What names a putting source; without a slash, so that keys are unambiguous. */
export const putSourcePattern = '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$';

const PutSource = Type.String({
  pattern: putSourcePattern,
  description:
    'Name of the system that speaks, such as cmdb: letters, digits, dots, dashes, 63 at most. It ends only what it put itself.',
});
const { name, kind, group, addresses, labels, annotations, since } = HostEntry.properties;
const id = Type.String({
  minLength: 1,
  maxLength: 253,
  description: 'Stays the same when the workload is renamed or moved, and is unique in the estate.',
});

export const PutEntry = Type.Object(
  {
    id,
    name: Type.Optional(name),
    kind,
    group,
    network: Type.Optional(network),
    addresses,
    labels,
    annotations,
    since,
  },
  { ...closed, description: 'The whole truth about one workload; `name` is its id when absent.' },
);

export const RemoveEntry = Type.Object(
  { id, remove: Type.Literal(true) },
  { ...closed, description: 'The workload is no more.' },
);

/** A request. Entries are checked one by one, so that the wrong one can be named. */
export const PutRequest = Type.Object(
  {
    source: PutSource,
    workloads: Type.Array(Type.Union([PutEntry, RemoveEntry]), {
      description: 'Those that are new or different; the others stay as they are.',
    }),
    replace: Type.Optional(
      Type.Boolean({
        description:
          'These are all there are: whatever else the source put before is no more. Absent: false.',
      }),
    ),
    ttl: Type.Optional(
      Type.Union(
        [
          Type.String({ pattern: '^\\d{1,9}(s|m|h|d|w)$' }),
          Type.Integer({ minimum: 1, maximum: 10 * 366 * 86_400 }),
        ],
        {
          description:
            'Lifetime, `24h` or in seconds: these workloads end unless they are put again within it. Absent: they stay until they are removed.',
        },
      ),
    ),
  },
  closed,
);

const timeMs = Type.Integer({ minimum: 0 });
const putId = Type.String({ minLength: 1, description: 'The request it came with.' });

/** Value of a message keyed by {@link putKey}. Addresses are in their canonical text, each with its network. */
export const PutWorkload = Type.Object(
  {
    v: Type.Literal(1),
    source: PutSource,
    put: putId,
    putMs: timeMs,
    untilMs: Type.Optional(timeMs),
    id,
    name,
    kind: Type.Union([Type.Literal('vm'), Type.Literal('host')]),
    group: Type.String(),
    addresses: Type.Array(Type.Object({ ip: Type.String(), network: Type.String() }, closed)),
    labels: Type.Record(Type.String(), Type.String()),
    annotations: Type.Record(Type.String(), Type.String()),
    sinceMs: Type.Optional(timeMs),
  },
  closed,
);

/** Value of a message keyed by {@link replacedKey}. */
export const PutReplaced = Type.Object(
  { v: Type.Literal(1), source: PutSource, put: putId, putMs: timeMs },
  closed,
);

export function putKey(source: string, workloadId: string): string {
  return `${source}/${workloadId}`;
}

export function replacedKey(source: string): string {
  return source;
}

/** Header of a tombstone that tidies up what ended long ago: the `put` of the entry that it means. */
export const tidiedHeader = 'tidied';

export type PutEntry = Static<typeof PutEntry>;
export type RemoveEntry = Static<typeof RemoveEntry>;
export type PutRequest = Static<typeof PutRequest>;
export type PutWorkload = Static<typeof PutWorkload>;
export type PutReplaced = Static<typeof PutReplaced>;

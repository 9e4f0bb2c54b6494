/** What the spool must know beside the batches themselves; one small JSON file, replaced as a whole. */
import Type, { type Static } from 'typebox';
import { Compile } from 'typebox/compile';

const SpoolState = Type.Object({
  /** Flows dropped from the spool since it was made. */
  dropCount: Type.Integer({ minimum: 0 }),
  /** Of these, how many the batches that are delivered and removed told of. */
  toldDropCount: Type.Integer({ minimum: 0 }),
  /** Segments whose flows are in `dropCount`, should they still be there. */
  droppedSegments: Type.Array(Type.Integer({ minimum: 0 })),
  /** End of the last interval that was put into the spool, ms since the epoch; 0: never. */
  observedToMs: Type.Integer({ minimum: 0 }),
  /** The last batch that was put into the spool; empty: none. */
  lastBootId: Type.String(),
  lastSequence: Type.Integer({ minimum: 0 }),
});
export type SpoolState = Static<typeof SpoolState>;

const check = Compile(SpoolState);

export const emptyState: SpoolState = {
  dropCount: 0,
  toldDropCount: 0,
  droppedSegments: [],
  observedToMs: 0,
  lastBootId: '',
  lastSequence: 0,
};

/** `null` where the text is no such state. */
export function parseState(text: string): SpoolState | null {
  try {
    const value: unknown = JSON.parse(text);
    return check.Check(value) ? value : null;
  } catch {
    return null;
  }
}

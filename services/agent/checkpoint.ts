/**
 * Which connections were reported, and how far: kept with each batch, so that the next run of the agent neither counts
 * a connection anew nor loses what it did meanwhile.
 */
import Type from 'typebox';
import { Compile } from 'typebox/compile';
import { type State, states } from '../../schemas/closed-lists.ts';
import type { Counters, Ends } from './flow-event.ts';

export interface Reported extends Counters {
  readonly state: State;
}

/** By `connectionName`. */
export type Checkpoint = ReadonlyMap<string, Reported>;

/** More connections than this are not kept: the next run then goes by their age. */
export const maxCheckpointConnections = 20_000;

const count = Type.Integer({ minimum: 0 });
const Saved = Type.Array(
  Type.Tuple([
    Type.String(),
    Type.Integer({ minimum: 0, maximum: states.length - 1 }),
    count,
    count,
    count,
    count,
  ]),
);
const check = Compile(Saved);

/** The same in every run of the agent, as long as the connection lives. */
export function connectionName({
  protocol,
  source,
  sourcePort,
  destination,
  destinationPort,
  original,
}: Ends): string {
  const before = original === null ? '' : ` ${original.address} ${original.port}`;
  return `${protocol} ${source} ${sourcePort} ${destination} ${destinationPort}${before}`;
}

/** Empty for none. */
export function encodeCheckpoint(checkpoint: Checkpoint | null): string {
  if (checkpoint === null) return '';
  return JSON.stringify(
    [...checkpoint].map(([name, reported]) => [
      name,
      states.indexOf(reported.state),
      reported.bytesForward,
      reported.bytesReverse,
      reported.packetsForward,
      reported.packetsReverse,
    ]),
  );
}

/** `null` where the text is none (or was left empty). */
export function decodeCheckpoint(text: string): Checkpoint | null {
  let saved: unknown;
  try {
    saved = JSON.parse(text);
  } catch {
    return null;
  }
  if (!check.Check(saved)) return null;
  return new Map(
    saved.map(([name, state, bytesForward, bytesReverse, packetsForward, packetsReverse]) => [
      name,
      { state: states[state] ?? 'unknown', bytesForward, bytesReverse, packetsForward, packetsReverse },
    ]),
  );
}

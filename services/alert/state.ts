/** The small file that the alert service keeps beside the store: how far it has looked, and who said 410 Gone. */
import { mkdir, open, readFile, rename } from 'node:fs/promises';
import { dirname } from 'node:path';
import Type, { type Static } from 'typebox';
import { Check } from 'typebox/value';

export const AlertState = Type.Object({
  v: Type.Literal(1),
  /** Edges that the store heard of before this are no news, ms since the epoch. */
  baselineMs: Type.Number(),
  /** Everything up to here was looked at, ms since the epoch. */
  cursorMs: Type.Number(),
  /** Receivers that answered 410: name to the fingerprint of URL and secret that were gone. */
  gone: Type.Record(Type.String(), Type.String()),
});
export type AlertState = Static<typeof AlertState>;

/** The state, or `null` where there is none yet. @throws {Error} when the file is there and cannot be read. */
export async function readState(path: string): Promise<AlertState | null> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return null;
    throw error;
  }
  const value: unknown = JSON.parse(text);
  if (!Check(AlertState, value))
    throw new Error(`${path} is not the state of the alert service; remove it to begin anew`);
  return value;
}

/** Replaces the file as a whole. */
export async function writeState(path: string, state: AlertState): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  const file = await open(`${path}.new`, 'w', 0o600);
  try {
    await file.writeFile(JSON.stringify(state));
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(`${path}.new`, path);
}

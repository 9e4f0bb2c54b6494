/** Cursors: the place in a list, with the window it was asked for, so that relative times don't move between pages. */
import type { Window } from './filters.ts';

export interface Cursor {
  readonly window: Window;
  readonly offset: number;
}

export function encodeCursor(cursor: Cursor): string {
  return Buffer.from(JSON.stringify([cursor.window.sinceS, cursor.window.untilS, cursor.offset])).toString(
    'base64url',
  );
}

function isSecond(value: unknown): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= 4_294_967_295;
}

/** `null` where the text is no cursor. */
export function decodeCursor(text: string): Cursor | null {
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(text, 'base64url').toString('utf8'));
  } catch {
    return null;
  }
  if (!Array.isArray(value) || value.length !== 3) return null;
  const [sinceS, untilS, offset]: readonly unknown[] = value;
  if (!isSecond(sinceS) || !isSecond(offset)) return null;
  if (untilS === null) return { window: { sinceS, untilS }, offset };
  return isSecond(untilS) ? { window: { sinceS, untilS }, offset } : null;
}

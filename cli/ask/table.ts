/** Tables that fit a terminal: columns give way, the widest first, and say so with an ellipsis. */
import type { Style, Tone } from './style.ts';

export interface Cell {
  readonly text: string;
  readonly tone?: Tone;
}

export interface Column {
  readonly title: string;
  readonly align?: 'left' | 'right';
  /** Narrowest it may get, in characters; without it the column is never cut (addresses, counts, times). */
  readonly min?: number;
  /** Left out before others are cut below what is comfortable; the last of these first. */
  readonly optional?: true;
}

const gap = 2;
/** A column that may give way is read comfortably at this width. */
const comfortable = 26;

/** Characters a terminal gives to a text: two for wide ones, none for marks that combine. */
export function displayWidth(text: string): number {
  let width = 0;
  for (const char of text) {
    const code = char.codePointAt(0) ?? 0;
    if (code < 0x300) width += code >= 0x20 && code !== 0x7f ? 1 : 0;
    else if (/\p{M}/u.test(char)) width += 0;
    else width += isWide(code) ? 2 : 1;
  }
  return width;
}

/** East Asian Wide and Fullwidth blocks, and emoji (Unicode Standard Annex 11). */
function isWide(code: number): boolean {
  return (
    (code >= 0x1100 && code <= 0x115f) ||
    (code >= 0x2e80 && code <= 0xa4cf) ||
    (code >= 0xac00 && code <= 0xd7a3) ||
    (code >= 0xf900 && code <= 0xfaff) ||
    (code >= 0xfe30 && code <= 0xfe6f) ||
    (code >= 0xff00 && code <= 0xff60) ||
    (code >= 0x1f300 && code <= 0x1faff)
  );
}

/** A text from outside on one line: control characters would move the cursor or colour the terminal. */
export function printable(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is taken out
  return text.replace(/[\u0000-\u001f\u007f-\u009f]+/g, ' ');
}

/** Cut to `width`, keeping begin and end, as names differ in either. */
export function ellipsis(text: string, width: number): string {
  if (displayWidth(text) <= width) return text;
  if (width <= 1) return '…'.slice(0, width);
  const chars = [...text];
  const tailWidth = Math.floor((width - 1) / 3);
  let head = '';
  for (const char of chars) {
    if (displayWidth(head + char) > width - 1 - tailWidth) break;
    head += char;
  }
  let tail = '';
  for (const char of chars.toReversed()) {
    if (displayWidth(char + tail) > tailWidth) break;
    tail = char + tail;
  }
  return `${head}…${tail}`;
}

function totalWidth(widths: readonly number[]): number {
  return widths.reduce((sum, width) => sum + width, 0) + gap * (widths.length - 1);
}

/** Indexes of the columns that are shown. */
function shownColumns(columns: readonly Column[], natural: readonly number[], available: number): number[] {
  const shown = columns.map((_, index) => index);
  const wanted = (): number =>
    totalWidth(
      shown.map((index) => {
        const width = natural[index] ?? 0;
        const min = columns[index]?.min;
        return min === undefined ? width : Math.min(width, Math.max(min, comfortable));
      }),
    );
  while (wanted() > available) {
    const last = shown.findLast((index) => columns[index]?.optional === true);
    if (last === undefined) break;
    shown.splice(shown.indexOf(last), 1);
  }
  return shown;
}

/** Widths that fit `available`: the widest column that may give way does, one character at a time. */
function fit(columns: readonly Column[], natural: readonly number[], available: number): number[] {
  const widths = [...natural];
  let excess = totalWidth(widths) - available;
  while (excess > 0) {
    let widest = -1;
    widths.forEach((width, index) => {
      const min = columns[index]?.min;
      if (min !== undefined && width > min && (widest < 0 || width > (widths[widest] ?? 0))) widest = index;
    });
    if (widest < 0) break;
    widths[widest] = (widths[widest] ?? 0) - 1;
    excess--;
  }
  return widths;
}

function cellOf(value: string | Cell | undefined): Cell {
  const cell = typeof value === 'string' || value === undefined ? { text: value ?? '' } : value;
  return { ...cell, text: printable(cell.text) };
}

/** Lines of a table; `width` is that of the terminal, `Infinity` for a pipe. */
export function formatTable(
  allColumns: readonly Column[],
  rows: readonly (readonly (string | Cell)[])[],
  options: { readonly width: number; readonly style: Style },
): string[] {
  const { width, style } = options;
  const allCells = rows.map((row) => allColumns.map((_, index) => cellOf(row[index])));
  const allNatural = allColumns.map((column, index) =>
    Math.max(displayWidth(column.title), ...allCells.map((row) => displayWidth(row[index]?.text ?? ''))),
  );
  const shown = shownColumns(allColumns, allNatural, width);
  const pick = <T>(list: readonly T[]): T[] => list.filter((_, index) => shown.includes(index));
  const columns = pick(allColumns);
  const widths = fit(columns, pick(allNatural), width);
  const line = (row: readonly Cell[]): string =>
    columns
      .map((column, index) => {
        const cell = row[index] ?? { text: '' };
        const text = ellipsis(cell.text, widths[index] ?? 0);
        const space = ' '.repeat(Math.max(0, (widths[index] ?? 0) - displayWidth(text)));
        const painted = style.paint(cell.tone ?? 'plain', text);
        const last = index === columns.length - 1;
        return column.align === 'right' ? space + painted : last ? painted : painted + space;
      })
      .join(' '.repeat(gap));
  return [
    line(columns.map((column) => ({ text: column.title, tone: 'dim' }))),
    ...allCells.map((row) => line(pick(row))),
  ];
}

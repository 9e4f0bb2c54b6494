/** Reads CSV as RFC 4180 describes it: a header line, quotes that hide commas and line breaks, doubled quotes inside. */

export interface CsvRow {
  /** Line on which it begins, from 1. */
  readonly line: number;
  readonly cells: readonly string[];
  /** Why it cannot be read as it stands; empty where it can. */
  readonly problem: string;
  /** Whether its end cannot be told, so that lines after it may belong to it. */
  readonly isUnclear: boolean;
  /** Whether the text ends with it and without a line end, as a text does that was cut off. */
  readonly isOpen: boolean;
}

/**
 * The rows of a text, the header among them; empty lines are left out. A byte order mark and any kind of line end are
 * taken. A quote that is never closed takes the rest of the text with it: that row is the last, and unclear.
 */
export function* csvRows(text: string): Generator<CsvRow> {
  let at = text.charCodeAt(0) === 0xfeff ? 1 : 0;
  let line = 1;
  while (at < text.length) {
    const begun = line;
    const cells: string[] = [];
    let problem = '';
    let isUnclear = false;
    let isRowDone = false;
    while (!isRowDone) {
      let cell = '';
      if (text[at] === '"') {
        const close = closingQuote(text, at);
        isUnclear = close < 0;
        const end = isUnclear ? text.length : close;
        cell = text.slice(at + 1, end).replaceAll('""', '"');
        line += lineBreaks(cell);
        at = end + 1;
        if (isUnclear) problem = 'a quote is opened and never closed';
      }
      const rest = cellEnd(text, at);
      if (rest > at) {
        const tail = text.slice(at, rest);
        if (cell !== '' && problem === '') problem = 'text follows a closing quote; quote the whole cell';
        else if (tail.includes('"') && problem === '')
          problem = 'a quote stands inside of a cell; quote the cell and double the quote';
        cell += tail;
      }
      cells.push(cell);
      at = rest;
      isRowDone = text[at] !== ',';
      if (!isRowDone) at++;
    }
    const isOpen = at >= text.length;
    if (text[at] === '\r' && text[at + 1] === '\n') at++;
    at++;
    line++;
    const isEmpty = cells.length === 1 && cells[0] === '' && problem === '';
    if (!isEmpty) yield { line: begun, cells, problem, isUnclear, isOpen };
  }
}

/** Where the quote that opens at `from` closes; -1 for never. */
function closingQuote(text: string, from: number): number {
  for (let at = text.indexOf('"', from + 1); at >= 0; at = text.indexOf('"', at + 2)) {
    if (text[at + 1] !== '"') return at;
  }
  return -1;
}

function cellEnd(text: string, from: number): number {
  let at = from;
  while (at < text.length) {
    const code = text.charCodeAt(at);
    if (code === 0x2c || code === 0x0a || code === 0x0d) break;
    at++;
  }
  return at;
}

function lineBreaks(text: string): number {
  return text.match(/\r\n|\r|\n/g)?.length ?? 0;
}

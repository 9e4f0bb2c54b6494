/** One log line of a process in one line for a person; the whole of it stays in the log file. */

const levels: Readonly<Record<number, { readonly word: string; readonly colour: number }>> = {
  10: { word: 'trace', colour: 90 },
  20: { word: 'debug', colour: 90 },
  30: { word: 'info', colour: 32 },
  40: { word: 'warn', colour: 33 },
  50: { word: 'error', colour: 31 },
  60: { word: 'fatal', colour: 31 },
};

/** Fields that every line has, or that stand elsewhere in the text. */
const plainFields = new Set(['level', 'time', 'pid', 'hostname', 'name', 'msg']);

export interface LogEntry {
  readonly level: number;
  readonly message: string;
  readonly fields: Readonly<Record<string, unknown>>;
}

/** Reads a line that pino wrote; `undefined` for any other text. */
export function parseLogLine(line: string): LogEntry | undefined {
  if (!line.startsWith('{')) {
    return undefined;
  }
  try {
    const parsed: unknown = JSON.parse(line);
    if (
      typeof parsed !== 'object' ||
      parsed === null ||
      !('level' in parsed) ||
      typeof parsed.level !== 'number'
    ) {
      return undefined;
    }
    const fields = Object.fromEntries(Object.entries(parsed).filter(([key]) => !plainFields.has(key)));
    return { level: parsed.level, message: 'msg' in parsed ? String(parsed.msg) : '', fields };
  } catch {
    return undefined;
  }
}

function fieldText(value: unknown): string {
  if (typeof value === 'object' && value !== null && 'message' in value) {
    return String(value.message);
  }
  const text = typeof value === 'string' ? value : JSON.stringify(value);
  return /^[^\s"=]+$/.test(text) ? text : JSON.stringify(value);
}

/** `warn  message key=value`; an error is its message, without the stack. */
export function formatLogEntry(entry: LogEntry, colour: boolean): string {
  const level = levels[entry.level] ?? { word: String(entry.level), colour: 0 };
  const word = level.word.padEnd(5);
  const shown = colour ? `\u001b[${level.colour}m${word}\u001b[0m` : word;
  const fields = Object.entries(entry.fields)
    .map(([key, value]) => {
      const text = fieldText(value);
      // A message that repeats its error says nothing twice.
      return text === entry.message || text === JSON.stringify(entry.message) ? '' : ` ${key}=${text}`;
    })
    .join('');
  return `${shown} ${entry.message}${fields}`;
}

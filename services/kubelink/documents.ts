/** Splits the text of a file into documents: YAML with several documents, or JSON. */
import { LineCounter, parseAllDocuments } from 'yaml';

export interface FileDocument {
  /** Where it stands, for messages: `document 2 (line 14)`. */
  readonly place: string;
  readonly value: unknown;
}

export interface FileProblem {
  readonly place: string;
  readonly message: string;
}

export interface FileDocuments {
  /** Documents that could be read, in order; empty ones are left out. */
  readonly documents: readonly FileDocument[];
  /** Syntax errors, one for each document that has any. */
  readonly problems: readonly FileProblem[];
}

function firstLine(message: string): string {
  return (message.split('\n', 1)[0] ?? message).replace(/:$/, '');
}

function parseJson(text: string): FileDocuments {
  try {
    return { documents: [{ place: 'document 1 (line 1)', value: JSON.parse(text) }], problems: [] };
  } catch (error) {
    return {
      documents: [],
      problems: [{ place: 'document 1 (line 1)', message: `not valid JSON: ${String(error)}` }],
    };
  }
}

/** JSON is told by its first character, so that the name of a file does not matter; everything else is YAML. */
export function parseDocuments(text: string): FileDocuments {
  if (/^\s*[{[]/.test(text) && !/^---/m.test(text)) return parseJson(text);
  const lines = new LineCounter();
  const parsed = parseAllDocuments(text, { lineCounter: lines });
  const documents: FileDocument[] = [];
  const problems: FileProblem[] = [];
  for (const [index, document] of [...parsed].entries()) {
    const offset = document.contents?.range?.[0] ?? document.range[0];
    const place = `document ${index + 1} (line ${lines.linePos(offset).line})`;
    const error = document.errors[0];
    if (error !== undefined) {
      problems.push({ place, message: `not valid YAML: ${firstLine(error.message)}` });
      continue;
    }
    try {
      const value: unknown = document.toJS();
      if (value !== null && value !== undefined) documents.push({ place, value });
    } catch (error) {
      // Too many aliases: a document that grows beyond reason when it is expanded.
      problems.push({ place, message: `not readable: ${firstLine(String(error))}` });
    }
  }
  return { documents, problems };
}

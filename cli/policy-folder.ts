/** A policy folder as commands take it: read, or an error for the operator; problems as lines. */
import { type LoadResult, type LocatedProblem, loadPolicy, type ReadOptions } from '../lib/policy/load.ts';
import { exitCodes, OperatorError } from '../lib/runtime/exit.ts';

/** @throws {OperatorError} where the folder can't be read. */
export async function readPolicyFolder(folder: string, options: ReadOptions = {}): Promise<LoadResult> {
  try {
    return await loadPolicy(folder, options);
  } catch (error) {
    throw new OperatorError(
      `${folder}: ${error instanceof Error ? error.message : String(error)}`,
      exitCodes.usage,
    );
  }
}

/** `file:line:column  severity: at: message`, as editors and CI know it. */
export function problemLine(
  { file, line, column, at, message, severity }: LocatedProblem,
  paint: (severity: LocatedProblem['severity']) => string = (text) => text,
): string {
  const place = line === 0 ? file : `${file}:${line}:${column}`;
  return `${place}  ${paint(severity)}: ${at === '' ? '' : `${at}: `}${message}`;
}

export function problemLines(problems: readonly LocatedProblem[]): string[] {
  return problems.map((problem) => problemLine(problem));
}

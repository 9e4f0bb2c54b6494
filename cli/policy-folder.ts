/** A policy folder as commands take it: read, or an error for the operator; problems as lines. */
import { type LoadResult, type LocatedProblem, loadPolicy } from '../lib/policy/load.ts';
import { exitCodes, OperatorError } from '../lib/runtime/exit.ts';

/** @throws {OperatorError} where the folder can't be read. */
export async function readPolicyFolder(folder: string): Promise<LoadResult> {
  try {
    return await loadPolicy(folder);
  } catch (error) {
    throw new OperatorError(
      `${folder}: ${error instanceof Error ? error.message : String(error)}`,
      exitCodes.usage,
    );
  }
}

/** `file:line:column  at: message`, as editors and CI know it. */
export function problemLines(problems: readonly LocatedProblem[]): string[] {
  return problems.map(({ file, line, column, at, message, severity }) => {
    const place = line === 0 ? file : `${file}:${line}:${column}`;
    return `${place}  ${severity === 'warning' ? 'warning: ' : ''}${at === '' ? '' : `${at}: `}${message}`;
  });
}

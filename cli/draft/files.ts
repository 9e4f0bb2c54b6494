/** The YAML files of a policy folder, as they are posted to the API: checked here first, so that errors name local files. */
import { readdir, readFile, stat } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { readPolicy } from '../../lib/policy/load.ts';
import { exitCodes, OperatorError } from '../../lib/runtime/exit.ts';
import { problemLines } from '../policy-folder.ts';

async function yamlFiles(path: string): Promise<string[]> {
  if ((await stat(path)).isFile()) return [path];
  const entries = await readdir(path, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile() && /\.ya?ml$/.test(entry.name))
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
}

/** @throws {OperatorError} where the folder can't be read, or the policy in it is wrong. */
export async function readPolicyFiles(folder: string): Promise<Record<string, string>> {
  const texts = new Map<string, string>();
  try {
    for (const file of await yamlFiles(folder))
      texts.set(relative(process.cwd(), file) || file, await readFile(file, 'utf8'));
  } catch (error) {
    throw new OperatorError(
      `${folder}: ${error instanceof Error ? error.message : String(error)}`,
      exitCodes.usage,
    );
  }
  if (texts.size === 0)
    throw new OperatorError(
      `${folder}: there are no .yaml files here: name a folder that has some`,
      exitCodes.usage,
    );
  const checked = readPolicy(texts);
  if (!checked.ok)
    throw new OperatorError(
      [`the policy in ${folder} is wrong:`, ...problemLines(checked.problems)].join('\n'),
      exitCodes.usage,
    );
  return Object.fromEntries(texts);
}

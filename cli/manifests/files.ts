/** Folders of manifests, as commands read them. */
import { readdir, readFile, stat } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { exitCodes, OperatorError } from '../../lib/runtime/exit.ts';

/** Largest file that is read, bytes, and most files. */
const maxManifestBytes = 32 * 1024 * 1024;
const maxManifestFiles = 20_000;

export const manifestEndings: readonly string[] = ['.yaml', '.yml', '.json'];

async function filesAt(path: string, endings: readonly string[]): Promise<string[]> {
  if ((await stat(path)).isFile()) return [path];
  const entries = await readdir(path, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile() && endings.some((ending) => entry.name.endsWith(ending)))
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
}

/** Texts by file name. @throws {OperatorError} where there is nothing to read, or too much. */
export async function readTexts(
  path: string,
  endings: readonly string[] = manifestEndings,
): Promise<Map<string, string>> {
  const texts = new Map<string, string>();
  const fail = (message: string): never => {
    throw new OperatorError(`${path}: ${message}`, exitCodes.usage);
  };
  try {
    const files = await filesAt(path, endings);
    if (files.length === 0)
      fail(`there are no ${endings.slice(0, -1).join(', ')} or ${endings.at(-1)} files here`);
    if (files.length > maxManifestFiles)
      fail(`there are ${files.length} files, at most ${maxManifestFiles} are read: name a smaller folder`);
    for (const file of files) {
      const { size } = await stat(file);
      if (size > maxManifestBytes)
        fail(`${file} has ${size} bytes, at most ${maxManifestBytes} are read: split it`);
      texts.set(relative(process.cwd(), file) || file, await readFile(file, 'utf8'));
    }
  } catch (error) {
    if (error instanceof OperatorError) throw error;
    fail(error instanceof Error ? error.message : String(error));
  }
  return texts;
}

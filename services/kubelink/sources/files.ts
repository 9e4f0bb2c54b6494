/** Finds files under a path and reads those that have changed. */
import type { BigIntStats } from 'node:fs';
import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';

/** A file that was written this short a time ago may be changed again without a trace in its times. */
const settleMs = 100;

export interface FileLimits {
  readonly maxFileBytes: number;
  readonly maxFileCount: number;
}

/** Ends of file names that are read where a source names no others. */
export const defaultExtensions: readonly string[] = ['.yaml', '.yml', '.json'];

function isNotFound(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'ENOENT';
}

/**
 * Paths of the files under a folder, sorted, or of the one file. Names that begin with a dot are left out: editors keep
 * copies there, and a mounted ConfigMap its older versions.
 * @throws {Error} where the path does not exist, cannot be listed, or holds too many files.
 */
export async function listFiles(
  path: string,
  maxFileCount: number,
  extensions: readonly string[] = defaultExtensions,
): Promise<string[]> {
  if (!(await stat(path)).isDirectory()) return [path];
  const found: string[] = [];
  const folders = [path];
  for (let folder = folders.pop(); folder !== undefined; folder = folders.pop()) {
    for (const entry of await readdir(folder, { withFileTypes: true })) {
      if (entry.name.startsWith('.')) continue;
      if (entry.isDirectory()) folders.push(join(folder, entry.name));
      else if (extensions.some((end) => entry.name.toLowerCase().endsWith(end)))
        found.push(join(folder, entry.name));
    }
    if (found.length > maxFileCount) {
      throw new Error(`more than ${maxFileCount} files under ${path} (kubelink.maxFileCount)`);
    }
  }
  return found.sort();
}

function stampOf(stats: BigIntStats): string {
  return [stats.mtimeNs, stats.ctimeNs, stats.size, stats.ino].join(':');
}

export type FileReading =
  | { readonly outcome: 'unchanged' }
  | {
      readonly outcome: 'read';
      readonly text: string;
      /** Names this version of the file; empty where it may still be changing and has to be read again. */
      readonly stamp: string;
    }
  | { readonly outcome: 'missing' }
  | { readonly outcome: 'failed'; readonly message: string };

/** Reads a file unless its stamp is still `stamp`. Never throws. */
export async function readIfChanged(path: string, stamp: string, limits: FileLimits): Promise<FileReading> {
  try {
    const before = await stat(path, { bigint: true });
    if (stampOf(before) === stamp) return { outcome: 'unchanged' };
    if (!before.isFile()) return { outcome: 'failed', message: 'not a file' };
    if (before.size > BigInt(limits.maxFileBytes)) {
      return {
        outcome: 'failed',
        message: `${before.size} bytes, more than ${limits.maxFileBytes} (kubelink.maxFileBytes)`,
      };
    }
    const text = await readFile(path, 'utf8');
    const after = await stat(path, { bigint: true });
    const ageMs = Date.now() - Number(after.mtimeMs);
    const isSettled = stampOf(after) === stampOf(before) && !(ageMs >= 0 && ageMs < settleMs);
    return { outcome: 'read', text, stamp: isSettled ? stampOf(after) : '' };
  } catch (error) {
    if (isNotFound(error)) return { outcome: 'missing' };
    return {
      outcome: 'failed',
      message: `cannot be read: ${error instanceof Error ? error.message : error}`,
    };
  }
}

/**
 * One owner of a folder at a time. The lock is the kernel's, on a SQLite file, so it ends with its process, however
 * that dies; what is written beside it only tells people who holds it.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';

/** Who holds a folder. */
export interface Instance {
  readonly pid: number;
  readonly httpPort: number;
  readonly tcpPort: number;
  readonly startedAt: string;
}

export interface FolderLock {
  release(): void;
}

/** The lock, or `null` while another process holds it. Throws when the file can't be made. */
export function tryLock(path: string): FolderLock | null {
  const database = new DatabaseSync(path);
  try {
    database.exec('PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE');
    return { release: () => database.close() };
  } catch (error) {
    database.close();
    if (error instanceof Error && /locked|busy/i.test(error.message)) return null;
    throw error;
  }
}

export function writeInstance(path: string, instance: Instance): void {
  writeFileSync(path, `${JSON.stringify(instance)}\n`);
}

/** A sentence part about the last known owner, empty when nothing is known. */
export function describeInstance(path: string): string {
  try {
    const value: unknown = JSON.parse(readFileSync(path, 'utf8'));
    if (typeof value !== 'object' || value === null) return '';
    if (!('pid' in value) || !('startedAt' in value)) return '';
    return ` (process ${value.pid}, since ${value.startedAt})`;
  } catch {
    return '';
  }
}

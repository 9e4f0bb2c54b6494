/** The file operations that the spool needs, so that a full disk can be tried in tests. */
import {
  closeSync,
  fsyncSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  truncateSync,
  writeSync,
} from 'node:fs';

export interface SpoolFiles {
  makeFolder(path: string): void;
  list(folder: string): string[];
  read(path: string): Buffer;
  /** Reads `length` bytes at `offset`. @throws {Error} when the file is shorter. */
  readAt(path: string, offset: number, length: number): Buffer;
  /** Writes at `offset` (cutting what was behind it) and makes it durable. */
  writeAt(path: string, offset: number, bytes: Uint8Array): void;
  truncate(path: string, length: number): void;
  /** Puts a whole file in place at once; `durable`: for a power cut too, not only for the end of the process. */
  replace(path: string, bytes: Uint8Array, durable: boolean): void;
  remove(path: string): void;
}

function withFile<T>(path: string, flags: string, use: (file: number) => T): T {
  const file = openSync(path, flags, 0o600);
  try {
    return use(file);
  } finally {
    closeSync(file);
  }
}

function writeAll(file: number, bytes: Uint8Array, offset: number): void {
  for (let done = 0; done < bytes.length; ) {
    done += writeSync(file, bytes, done, bytes.length - done, offset + done);
  }
}

/** The folder's entry of a new or renamed file must be durable too. */
function syncFolderOf(path: string): void {
  withFile(path.slice(0, path.lastIndexOf('/')) || '/', 'r', fsyncSync);
}

function openForWriting(path: string): { file: number; created: boolean } {
  try {
    return { file: openSync(path, 'r+', 0o600), created: false };
  } catch (error) {
    if (!(error instanceof Error) || !('code' in error) || error.code !== 'ENOENT') throw error;
    return { file: openSync(path, 'wx+', 0o600), created: true };
  }
}

export const realFiles: SpoolFiles = {
  makeFolder: (path) => {
    mkdirSync(path, { recursive: true, mode: 0o700 });
  },
  list: (folder) => readdirSync(folder),
  read: (path) => readFileSync(path),
  readAt: (path, offset, length) =>
    withFile(path, 'r', (file) => {
      const bytes = Buffer.alloc(length);
      for (let done = 0; done < length; ) {
        const count = readSync(file, bytes, done, length - done, offset + done);
        if (count === 0) throw new Error(`${path} ends before byte ${offset + length}`);
        done += count;
      }
      return bytes;
    }),
  writeAt: (path, offset, bytes) => {
    const { file, created } = openForWriting(path);
    try {
      ftruncateSync(file, offset);
      writeAll(file, bytes, offset);
      fsyncSync(file);
    } finally {
      closeSync(file);
    }
    if (created) syncFolderOf(path);
  },
  truncate: (path, length) => truncateSync(path, length),
  replace: (path, bytes, durable) => {
    const temporary = `${path}.new`;
    withFile(temporary, 'w', (file) => {
      writeAll(file, bytes, 0);
      if (durable) fsyncSync(file);
    });
    renameSync(temporary, path);
    if (durable) syncFolderOf(path);
  },
  remove: (path) => rmSync(path, { force: true }),
};

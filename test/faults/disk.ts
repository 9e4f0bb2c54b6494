/** A small disk of its own, which can be filled: what is written there then fails as on any full disk. */
import { spawnSync } from 'node:child_process';
import { closeSync, openSync, rmSync, writeSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface Disk {
  readonly path: string;
  /** False where no file system may be mounted here: it is then a plain folder, and `fill` does nothing. */
  readonly canFill: boolean;
  fill(): void;
  free(): void;
  close(): Promise<void>;
}

const mebi = 1024 * 1024;
const chunk = Buffer.alloc(64 * 1024, 'x');
/** The last bytes are taken in small steps, so that nothing fits any more. */
const crumb = Buffer.alloc(512, 'x');

/** Without `bytes` it is a plain folder. */
export async function openDisk(name: string, bytes: number): Promise<Disk> {
  const path = await mkdtemp(join(tmpdir(), `eastwest-${name}-`));
  const size = `size=${Math.ceil(bytes / mebi)}m`;
  const canFill =
    bytes > 0 &&
    process.getuid?.() === 0 &&
    spawnSync('mount', ['-t', 'tmpfs', '-o', size, 'tmpfs', path]).status === 0;
  const ballast = join(path, 'ballast');
  return {
    path,
    canFill,
    fill() {
      if (!canFill) return;
      const file = openSync(ballast, 'a');
      try {
        for (const piece of [chunk, crumb]) {
          try {
            while (writeSync(file, piece) === piece.length);
          } catch (error) {
            if (!(error instanceof Error) || !error.message.includes('ENOSPC')) throw error;
          }
        }
      } finally {
        closeSync(file);
      }
    },
    free() {
      if (canFill) rmSync(ballast, { force: true });
    },
    async close() {
      if (canFill) spawnSync('umount', ['-l', path]);
      await rm(path, { recursive: true, force: true });
    },
  };
}

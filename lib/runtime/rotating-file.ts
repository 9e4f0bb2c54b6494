/** A log file that starts anew when it is full and keeps a few older ones. */
import { closeSync, existsSync, fstatSync, openSync, renameSync, rmSync, writeSync } from 'node:fs';

export interface RotationLimits {
  /** A file that would grow over this is closed, bytes. */
  readonly maxBytes: number;
  /** How many full files are kept beside the one being written (`name.1` is the newest). */
  readonly keptCount: number;
}

export interface RotatingFile {
  write(text: string): void;
  close(): void;
}

function shift(path: string, keptCount: number): void {
  rmSync(`${path}.${keptCount}`, { force: true });
  for (let index = keptCount - 1; index >= 1; index--) {
    if (existsSync(`${path}.${index}`)) {
      renameSync(`${path}.${index}`, `${path}.${index + 1}`);
    }
  }
  if (keptCount > 0) {
    renameSync(path, `${path}.1`);
  } else {
    rmSync(path, { force: true });
  }
}

/** Appends to `path`. Throws what the file system throws when it can't be opened; a failing write loses that text. */
export function openRotatingFile(path: string, limits: RotationLimits): RotatingFile {
  let descriptor = openSync(path, 'a', 0o600);
  let size = fstatSync(descriptor).size;
  let open = true;
  return {
    write(text) {
      if (!open) {
        return;
      }
      const bytes = Buffer.from(text);
      try {
        if (size > 0 && size + bytes.length > limits.maxBytes) {
          shift(path, limits.keptCount);
          const full = descriptor;
          descriptor = openSync(path, 'a', 0o600);
          closeSync(full);
          size = 0;
        }
        size += writeSync(descriptor, bytes);
      } catch {
        // A full disk must not end the supervisor; what matters was also shown on the terminal.
      }
    },
    close() {
      if (open) {
        open = false;
        closeSync(descriptor);
      }
    },
  };
}

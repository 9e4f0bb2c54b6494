/** Reports that something under a path may have changed. A help only: what it misses, the regular look finds. */
import { type FSWatcher, statSync, watch } from 'node:fs';
import { basename, dirname } from 'node:path';
import type { Logger } from 'pino';

export class PathWatch {
  readonly #path: string;
  readonly #log: Logger;
  readonly #onChange: () => void;
  #watcher: FSWatcher | null = null;

  constructor(path: string, log: Logger, onChange: () => void) {
    this.#path = path;
    this.#log = log;
    this.#onChange = onChange;
  }

  /** Starts watching unless it does; to be called now and then, since a path may come later or go. */
  ensure(): void {
    if (this.#watcher !== null) return;
    try {
      // A file is replaced by renaming another onto it: only its folder sees that.
      const isFolder = statSync(this.#path).isDirectory();
      const name = basename(this.#path);
      this.#watcher = isFolder
        ? watch(this.#path, { recursive: true }, () => this.#onChange())
        : watch(dirname(this.#path), (_, changed) => {
            if (changed === null || changed === name) this.#onChange();
          });
      this.#watcher.on('error', (error) => this.#failed(error));
    } catch (error) {
      this.#failed(error);
    }
  }

  /** Whether changes are being reported. */
  get isLive(): boolean {
    return this.#watcher !== null;
  }

  close(): void {
    this.#watcher?.close();
    this.#watcher = null;
  }

  #failed(error: unknown): void {
    this.#log.debug({ path: this.#path, error: String(error) }, 'cannot watch, looking regularly instead');
    this.close();
  }
}

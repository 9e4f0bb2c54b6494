/** A source that is a folder or a file: keeps what each file said last, and tells the whole truth when any has changed. */
import { resolve } from 'node:path';
import type { Logger } from 'pino';
import type { InventoryEvent } from '../../../lib/inventory/events.ts';
import type { IgnoredKind } from '../manifests/convert.ts';
import type { ServiceEndpoints } from '../manifests/endpoint-slice.ts';
import { type FileLimits, listFiles, readIfChanged } from './files.ts';
import { Look } from './look.ts';
import type { Source, SourceSink } from './source.ts';
import { PathWatch } from './watch.ts';

/** One thing a file speaks of. */
export interface FileEntity {
  readonly event: InventoryEvent;
  /** Pod ranges it was given (nodes). */
  readonly podCidrs: readonly string[];
  /** DNS names whose addresses are to be looked up (listed names). */
  readonly lookups?: readonly string[];
  /** What else is said of it. */
  readonly also?: readonly InventoryEvent[];
}

/** What a file says. `ref` is the name of a thing within its source. */
export interface FileContents {
  readonly entities: ReadonlyMap<string, FileEntity>;
  /** Addresses behind services, by name of their slice. */
  readonly endpoints?: ReadonlyMap<string, ServiceEndpoints>;
  /** What could not be read. `ref` is `null` where it cannot be told what it speaks of. */
  readonly malformed: readonly { readonly ref: string | null; readonly message: string }[];
  readonly ignored: ReadonlyMap<IgnoredKind, number>;
}

export interface FileSourceOptions {
  readonly name: string;
  readonly path: string;
  readonly limits: FileLimits;
  readonly debounceMs: number;
  readonly rescanMs: number;
  readonly log: Logger;
  /** Ends of names of files that are read, such as `.csv`; names are compared in lower case. Default: YAML and JSON. */
  readonly extensions?: readonly string[];
  /** Reads the text of a file. Must neither throw nor reject. */
  readonly read: (text: string, path: string) => FileContents | Promise<FileContents>;
  /** Events that follow from all files together; they count in place of what one file says of the same thing. */
  readonly derived: (
    entities: readonly FileEntity[],
    endpoints: readonly ServiceEndpoints[],
  ) => readonly InventoryEvent[];
}

interface KnownFile {
  readonly stamp: string;
  readonly contents: FileContents;
  /** Why its newest version could not be read at all; empty where it could. */
  readonly failure: string;
}

const empty: FileContents = { entities: new Map(), malformed: [], ignored: new Map() };

/**
 * What a file says now, where parts of it cannot be read: those keep what they said before. Where it cannot be told
 * which parts they are (a syntax error, a file that is being written), nothing of the file is taken as gone.
 */
export function keepUnreadable(before: FileContents, now: FileContents): FileContents {
  if (now.malformed.length === 0) return now;
  const isUnclear = now.malformed.some(({ ref }) => ref === null);
  const refs = new Set(now.malformed.map(({ ref }) => ref));
  const isKept = ([ref]: readonly [string, unknown]): boolean => isUnclear || refs.has(ref);
  return {
    ...now,
    entities: new Map([...[...before.entities].filter(isKept), ...now.entities]),
    endpoints: new Map([...[...(before.endpoints ?? [])].filter(isKept), ...(now.endpoints ?? [])]),
  };
}

export class FileSource implements Source {
  readonly name: string;
  readonly #options: FileSourceOptions;
  readonly #path: string;
  #files = new Map<string, KnownFile>();
  #look: Look | null = null;
  #watch: PathWatch | null = null;
  /** The files say what was so until then, ms; 0: not read yet. */
  #completeToMs = 0;
  #isFailing = true;
  /** When {@link completeToMs} was asked last, ms; 0 where not all was quiet then. */
  #quietAtMs = 0;

  constructor(options: FileSourceOptions) {
    this.name = options.name;
    this.#options = options;
    this.#path = resolve(options.path);
  }

  start(sink: SourceSink): void {
    const { log, debounceMs, rescanMs } = this.#options;
    const look = new Look({ look: () => this.#readAll(sink), debounceMs, intervalMs: rescanMs });
    this.#look = look;
    this.#watch = new PathWatch(this.#path, log, () => look.ask());
    look.start();
  }

  /**
   * The files are the truth as of the last look at all of them; while a watch of the operating system reports nothing,
   * they go on being it. A file that cannot be read, unlike one that can and is wrong, keeps all back.
   */
  completeToMs(): number {
    const isQuiet = this.#look?.isIdle === true && this.#watch?.isLive === true && !this.#isFailing;
    // What changed before the last question has been reported by now: in between, the event loop took in all there was.
    if (isQuiet) this.#completeToMs = Math.max(this.#completeToMs, this.#quietAtMs);
    this.#quietAtMs = isQuiet ? Date.now() : 0;
    return this.#completeToMs;
  }

  async stop(): Promise<void> {
    this.#watch?.close();
    await this.#look?.stop();
    this.#watch?.close();
  }

  async #readAll(sink: SourceSink): Promise<void> {
    const beganMs = Date.now();
    this.#isFailing = true;
    // Before the reading, so that no change falls between the two.
    this.#watch?.ensure();
    let paths: string[];
    try {
      paths = await listFiles(this.#path, this.#options.limits.maxFileCount, this.#options.extensions);
    } catch (error) {
      this.#watch?.close();
      sink.failing(`${this.#path} cannot be read: ${error instanceof Error ? error.message : error}`);
      return;
    }
    const files = new Map<string, KnownFile>();
    for (const path of paths) {
      const file = await this.#readOne(path);
      if (file !== null) files.set(path, file);
    }
    if (files.size === 0 && paths.includes(this.#path)) {
      sink.failing(`${this.#path} disappeared while it was read`);
      return;
    }
    this.#files = files;
    this.#tell(sink);
    if ([...files.values()].some(({ failure }) => failure !== '')) return;
    this.#isFailing = false;
    this.#completeToMs = Math.max(this.#completeToMs, beganMs);
  }

  async #readOne(path: string): Promise<KnownFile | null> {
    const known = this.#files.get(path);
    const reading = await readIfChanged(path, known?.stamp ?? '', this.#options.limits);
    switch (reading.outcome) {
      case 'missing':
        return null;
      case 'unchanged':
        return known ?? null;
      case 'failed':
        return { stamp: '', contents: known?.contents ?? empty, failure: reading.message };
      case 'read': {
        if (reading.stamp === '') this.#look?.ask();
        const now = await this.#options.read(reading.text, path);
        const contents = keepUnreadable(known?.contents ?? empty, now);
        return { stamp: reading.stamp, contents, failure: '' };
      }
    }
  }

  #tell(sink: SourceSink): void {
    const problems: string[] = [];
    const ignored = new Map<IgnoredKind, number>();
    const entities: FileEntity[] = [];
    const endpoints: ServiceEndpoints[] = [];
    for (const [path, { contents, failure }] of this.#files) {
      if (failure !== '') problems.push(`${path}: ${failure}`);
      for (const { message } of contents.malformed) problems.push(`${path}: ${message}`);
      for (const [kind, count] of contents.ignored) ignored.set(kind, (ignored.get(kind) ?? 0) + count);
      entities.push(...contents.entities.values());
      endpoints.push(...(contents.endpoints?.values() ?? []));
    }
    sink.problems(problems);
    sink.ignored(ignored);
    sink.snapshot([
      ...entities.flatMap(({ event, also }) => [event, ...(also ?? [])]),
      ...this.#options.derived(entities, endpoints),
    ]);
  }
}

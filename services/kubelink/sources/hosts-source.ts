/** A source of VMs, bare-metal hosts, named ranges and DNS names in files: YAML, JSON and CSV. */
import { Resolver } from 'node:dns/promises';
import { Worker } from 'node:worker_threads';
import type { Logger } from 'pino';
import type { HostsSource, KubelinkConfig } from '../config.ts';
import { type FileContents, type FileEntity, FileSource, type FileSourceOptions } from './file-source.ts';
import { defaultExtensions } from './files.ts';
import { readHostsFile } from './hosts.ts';
import type { Piece } from './hosts-thread.ts';
import { NameResolver } from './names.ts';
import type { Restored, Source, SourceSink } from './source.ts';

/** Longer texts are read in a thread of their own: 24,000 hosts in YAML keep it busy for seconds. Characters. */
const maxOwnThreadLength = 64 * 1024;

/** Reads a long file without holding up this process. Never rejects. */
export async function readInThread(text: string, path: string): Promise<FileContents> {
  const worker = new Worker(new URL('./hosts-thread.ts', import.meta.url), {
    workerData: { text, path },
    // Options of this process, such as a program on its command line, are none of the thread's.
    execArgv: [],
    env: {},
  });
  const entities = new Map<string, FileEntity>();
  const ask = (): void => worker.postMessage('next');
  try {
    const malformed = await new Promise<FileContents['malformed']>((resolve, reject) => {
      worker.on('message', (piece: Piece) => {
        for (const [ref, entity] of piece.entities) entities.set(ref, entity);
        // Pieces that are asked for one by one let other work have its turn in between.
        if (piece.malformed === null) setImmediate(ask);
        else resolve(piece.malformed);
      });
      worker.once('error', reject);
      worker.once('exit', (code) => reject(new Error(`the reading ended with ${code}`)));
      ask();
    });
    return { entities, malformed, ignored: new Map() };
  } catch (error) {
    const message = `cannot be read: ${error instanceof Error ? error.message : error}`;
    return { entities: new Map(), malformed: [{ ref: null, message }], ignored: new Map() };
  } finally {
    await worker.terminate();
  }
}

function read(text: string, path: string): FileContents | Promise<FileContents> {
  return text.length > maxOwnThreadLength ? readInThread(text, path) : readHostsFile(text, path);
}

function namesOf(entities: readonly FileEntity[]) {
  return entities.flatMap(({ event, lookups = [] }) =>
    event.type === 'name' && lookups.length > 0 ? [{ event, lookups }] : [],
  );
}

class HostsFileSource implements Source {
  readonly name: string;
  readonly #files: FileSource;
  readonly #names: NameResolver;
  #fileProblems: readonly string[] = [];

  constructor(files: Omit<FileSourceOptions, 'derived'>, names: NameResolver) {
    this.name = files.name;
    this.#names = names;
    this.#files = new FileSource({
      ...files,
      derived: (entities) => {
        names.want(namesOf(entities));
        return [];
      },
    });
  }

  start(sink: SourceSink, restored: Restored): void {
    const tellProblems = (): void => sink.problems([...this.#fileProblems, ...this.#names.problems()]);
    this.#names.start({ restored, changed: (event) => sink.change(event), problemsChanged: tellProblems });
    this.#files.start({
      snapshot: (events, seenToMs) => {
        const resolved = events.map((event) =>
          event.type === 'name' ? this.#names.withAddresses(event) : event,
        );
        sink.snapshot(resolved, seenToMs);
      },
      problems: (current) => {
        this.#fileProblems = current;
        tellProblems();
      },
      change: (event, atMs) => sink.change(event, atMs),
      gone: (key, atMs) => sink.gone(key, atMs),
      ignored: (current) => sink.ignored(current),
      failing: (reason) => sink.failing(reason),
    });
  }

  completeToMs(): number {
    return this.#files.completeToMs();
  }

  async stop(): Promise<void> {
    await Promise.all([this.#files.stop(), this.#names.stop()]);
  }
}

export function hostsSource(name: string, source: HostsSource, config: KubelinkConfig, log: Logger): Source {
  const { servers, timeoutMs, tries } = config.names;
  const resolver = new Resolver({ timeout: timeoutMs, tries });
  if (servers.length > 0) resolver.setServers(servers);
  const { debounceMs, rescanMs } = config;
  return new HostsFileSource(
    {
      name,
      path: source.path,
      limits: config,
      debounceMs,
      rescanMs,
      log,
      extensions: [...defaultExtensions, '.csv'],
      read,
    },
    new NameResolver({ lookup: resolver, limits: config.names }),
  );
}

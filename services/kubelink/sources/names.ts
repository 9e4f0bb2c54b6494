/** Looks up the addresses of listed DNS names, again and again: an address is the name's while it is found. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { NameEvent } from '../../../lib/inventory/events.ts';
import { formatAddress, parseAddress } from '../../../lib/net/address.ts';
import { defaultNetwork } from '../../../schemas/inventory-event.ts';
import type { NamesConfig } from '../config.ts';
import type { Restored } from './source.ts';

/** The part of node's DNS resolver that is asked. */
export interface Lookup {
  resolve4(name: string): Promise<string[]>;
  resolve6(name: string): Promise<string[]>;
  /** Ends what is under way. */
  cancel(): void;
}

export interface WantedName {
  readonly event: NameEvent;
  /** Its DNS names that are to be looked up. */
  readonly lookups: readonly string[];
}

export interface NameListener {
  readonly restored: Pick<Restored, 'event'>;
  /** A name has other addresses than before. */
  changed(event: NameEvent): void;
  problemsChanged(): void;
}

export interface NameResolverOptions {
  readonly lookup: Lookup;
  readonly limits: NamesConfig;
  /** Milliseconds since the epoch. */
  readonly now?: () => number;
}

const families = [4, 6] as const;
type Family = (typeof families)[number];

/** What is known of one DNS name. `null`: not looked up yet; a text: why the last try failed. */
interface Host {
  readonly answers: Record<Family, readonly string[] | string | null>;
}

interface Found {
  readonly family: Family;
  readonly sinceMs: number;
  /** When an answer named it last, ms. */
  seenMs: number;
}

interface Listed {
  wanted: WantedName;
  /** By address. */
  readonly found: Map<string, Found>;
  /** With its addresses; made anew when they or the entry change. */
  event: NameEvent;
}

/** Answers that say that there is no such record, which is an answer. */
const emptyCodes = new Set(['ENODATA']);

function familyOf(ip: string): Family {
  return ip.includes(':') ? 6 : 4;
}

function reasonOf(error: unknown): string {
  if (error instanceof Error && 'code' in error && typeof error.code === 'string') return error.code;
  return error instanceof Error ? error.message : String(error);
}

/** The text of an answer in the form that is compared; `null` where it is no address. */
function canonical(ip: string): string | null {
  const bytes = parseAddress(ip);
  return bytes === null ? null : formatAddress(bytes);
}

export class NameResolver {
  readonly #lookup: Lookup;
  readonly #limits: NamesConfig;
  readonly #now: () => number;
  readonly #stop = new AbortController();
  #wake = new AbortController();
  #running: Promise<void> = Promise.resolve();
  #listener: NameListener | null = null;
  #listed = new Map<string, Listed>();
  #hosts = new Map<string, Host>();
  /** DNS names beyond the limit. */
  #unheardCount = 0;
  #problems: readonly string[] = [];

  constructor(options: NameResolverOptions) {
    this.#lookup = options.lookup;
    this.#limits = options.limits;
    this.#now = options.now ?? Date.now;
  }

  start(listener: NameListener): void {
    this.#listener = listener;
    this.#running = this.#run();
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    this.#lookup.cancel();
    await this.#running;
  }

  /** These are all that are to be looked up; new ones are at once. */
  want(names: readonly WantedName[]): void {
    this.#listed = new Map(
      names.map((wanted) => {
        const { name } = wanted.event;
        const known = this.#listed.get(name);
        if (known?.wanted.event === wanted.event) return [name, known];
        const found = known?.found ?? this.#restore(wanted.event);
        return [name, { wanted, found, event: withFound(wanted.event, found) }];
      }),
    );
    const lookups = [...new Set(names.flatMap((wanted) => wanted.lookups))];
    const heard = lookups.slice(0, this.#limits.maxLookups);
    this.#unheardCount = lookups.length - heard.length;
    const none = (): Host => ({ answers: { 4: null, 6: null } });
    this.#hosts = new Map(heard.map((dns) => [dns, this.#hosts.get(dns) ?? none()]));
    this.#noteProblems();
    this.#wake.abort();
  }

  /** The event with the addresses that were found; the event itself, if its name is not looked up. */
  withAddresses(event: NameEvent): NameEvent {
    return this.#listed.get(event.name)?.event ?? event;
  }

  /** Names that cannot be looked up at present, each once. */
  problems(): readonly string[] {
    return this.#problems;
  }

  /** Looks all up once. Resolves when all have answered or failed. */
  async lookUp(hosts: readonly string[] = [...this.#hosts.keys()]): Promise<void> {
    const waiting = [...hosts];
    const worker = async (): Promise<void> => {
      for (let dns = waiting.shift(); dns !== undefined; dns = waiting.shift()) {
        if (this.#stop.signal.aborted) return;
        await this.#lookUpOne(dns);
      }
    };
    await Promise.all(Array.from({ length: this.#limits.concurrency }, worker));
    this.#noteProblems();
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    const { intervalMs } = this.#limits;
    let dueMs = performance.now() + intervalMs;
    while (!signal.aborted) {
      this.#wake = new AbortController();
      await this.lookUp(this.#neverAsked());
      // News that came meanwhile are looked at before the pause.
      const either = AbortSignal.any([signal, this.#wake.signal]);
      const pauseMs = Math.max(0, dueMs - performance.now());
      await sleep(pauseMs, undefined, { signal: either }).catch(() => undefined);
      if (signal.aborted || performance.now() < dueMs) continue;
      await this.lookUp();
      dueMs = performance.now() + intervalMs;
    }
  }

  #neverAsked(): string[] {
    return [...this.#hosts].flatMap(([dns, { answers }]) => (answers[4] === null ? [dns] : []));
  }

  /** What was found before a restart counts until it is known better. */
  #restore(event: NameEvent): Map<string, Found> {
    const restored = this.#listener?.restored.event(`name/${event.name}`) ?? null;
    if (restored?.type !== 'name') return new Map();
    const open = restored.addresses.filter(({ untilMs }) => untilMs === undefined);
    return new Map(
      open.map(({ ip, sinceMs }) => [ip, { family: familyOf(ip), sinceMs, seenMs: this.#now() }]),
    );
  }

  async #lookUpOne(dns: string): Promise<void> {
    const host = this.#hosts.get(dns);
    if (host === undefined) return;
    const ask = async (family: Family): Promise<void> => {
      try {
        const found = family === 4 ? await this.#lookup.resolve4(dns) : await this.#lookup.resolve6(dns);
        host.answers[family] = found.flatMap((ip) => canonical(ip) ?? []);
      } catch (error) {
        const reason = reasonOf(error);
        host.answers[family] = emptyCodes.has(reason) ? [] : reason;
      }
    };
    await Promise.all(families.map(ask));
    if (this.#stop.signal.aborted) return;
    for (const listed of this.#listed.values()) {
      if (listed.wanted.lookups.includes(dns)) this.#update(listed);
    }
  }

  #update(listed: Listed): void {
    const { keepMs, maxAddressesPerName } = this.#limits;
    const nowMs = this.#now();
    const { found, wanted } = listed;
    let isChanged = false;
    for (const family of families) {
      const answers = wanted.lookups.map((dns) => this.#hosts.get(dns)?.answers[family] ?? null);
      const named = new Set(answers.flatMap((answer) => (Array.isArray(answer) ? answer : [])));
      for (const ip of named) {
        const known = found.get(ip);
        if (known !== undefined) known.seenMs = nowMs;
        else if (found.size < maxAddressesPerName) {
          found.set(ip, { family, sinceMs: nowMs, seenMs: nowMs });
          isChanged = true;
        }
      }
      // While one of them does not answer, nobody knows whose an address was.
      if (!answers.every(Array.isArray)) continue;
      for (const [ip, { family: its, seenMs }] of found) {
        if (its !== family || named.has(ip) || nowMs - seenMs < keepMs) continue;
        found.delete(ip);
        isChanged = true;
      }
    }
    if (!isChanged) return;
    listed.event = withFound(wanted.event, found);
    this.#listener?.changed(listed.event);
  }

  #noteProblems(): void {
    const problems: string[] = [];
    for (const [dns, { answers }] of this.#hosts) {
      const [four, six] = [answers[4], answers[6]];
      if (typeof four === 'string' || typeof six === 'string') {
        const why = [...new Set([four, six].filter((answer) => typeof answer === 'string'))].join(', ');
        problems.push(`name ${dns}: cannot be looked up (${why}); the addresses that are known stay`);
      } else if (four?.length === 0 && six?.length === 0) problems.push(`name ${dns}: has no address`);
    }
    for (const { found, wanted } of this.#listed.values()) {
      if (found.size >= this.#limits.maxAddressesPerName)
        problems.push(
          `name ${wanted.event.name}: has ${found.size} addresses; more are not taken (kubelink.names.maxAddressesPerName)`,
        );
    }
    if (this.#unheardCount > 0)
      problems.push(
        `${this.#unheardCount} DNS names over the limit of ${this.#limits.maxLookups} are not looked up (kubelink.names.maxLookups)`,
      );
    if (problems.join('\n') === this.#problems.join('\n')) return;
    this.#problems = problems;
    this.#listener?.problemsChanged();
  }
}

function withFound(event: NameEvent, found: ReadonlyMap<string, Found>): NameEvent {
  const addresses = [...found].map(([ip, { sinceMs }]) => ({ ip, network: defaultNetwork, sinceMs }));
  return { ...event, addresses };
}

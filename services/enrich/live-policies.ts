/** The policies that judge flows, as they come: names that rules speak of are listed, and the newest is compiled ahead. */
import type { Logger } from 'pino';
import type { BusMessage } from '../../lib/bus/bus.ts';
import { type Inventory, policySource } from '../../lib/inventory/inventory.ts';
import { dnsNamesOf } from '../../lib/policy/dns-names.ts';
import { PolicyEngine } from '../../lib/policy/engine.ts';
import { PolicyFollower } from '../../lib/policy/follow.ts';
import type { PolicyTimeline } from '../../lib/policy/timeline.ts';
import type { PolicyDocument } from '../../schemas/policy.ts';
import type { EnrichMetrics } from './metrics.ts';

/** Makes the DNS names that rules speak of known, so that flows to them have an identity that says the name. */
class PolicyNames {
  readonly #inventory: Inventory;
  /** Keys of names that the inventory itself lists: those are left alone. */
  readonly #others = new Set<string>();
  #wanted: ReadonlySet<string> = new Set();

  constructor(inventory: Inventory) {
    this.#inventory = inventory;
  }

  /** To be told of each event of the inventory once it is applied. */
  note(key: string, isGone: boolean): void {
    if (!key.startsWith('name/')) return;
    if (isGone) this.#others.delete(key);
    else this.#others.add(key);
    const name = key.slice('name/'.length);
    if (isGone && this.#wanted.has(name)) this.#list(name);
  }

  use(policy: PolicyDocument): void {
    const before = this.#wanted;
    this.#wanted = new Set(dnsNamesOf(policy));
    for (const name of before) {
      const key = `name/${name}`;
      if (!this.#wanted.has(name) && !this.#others.has(key)) this.#inventory.apply(key, null);
    }
    for (const name of this.#wanted) if (!before.has(name)) this.#list(name);
  }

  #list(name: string): void {
    const key = `name/${name}`;
    if (this.#others.has(key)) return;
    const zone = 'outside';
    this.#inventory.apply(
      key,
      { v: 1, type: 'name', name, dns: [name], zone, labels: {}, addresses: [] },
      policySource,
    );
  }
}

interface Compiling {
  /** Flows that begin before are judged by earlier versions. */
  readonly fromMs: number;
  readonly done: Promise<void>;
}

export class LivePolicies {
  readonly names: PolicyNames;
  readonly #follower = new PolicyFollower();
  readonly #inventory: Inventory;
  readonly #metrics: EnrichMetrics;
  readonly #log: Logger;
  /** The newest version while it is compiled, a few ms at a time: flows of earlier ones go on meanwhile. */
  #compiling: Compiling | null = null;

  constructor(inventory: Inventory, metrics: EnrichMetrics, log: Logger) {
    this.#inventory = inventory;
    this.#metrics = metrics;
    this.#log = log;
    this.names = new PolicyNames(inventory);
  }

  get policies(): PolicyTimeline {
    return this.#follower.policies;
  }

  /** Takes messages of the topic. Returns whether another version is the newest now. */
  take(messages: readonly BusMessage[]): boolean {
    let isNew = false;
    for (const message of messages) {
      try {
        isNew = this.#follower.take(message) || isNew;
      } catch (error) {
        this.#log.error(
          { err: error, offset: message.offset },
          'policy left out: the others stay as they are',
        );
      }
    }
    if (!isNew) return false;
    this.names.use(this.policies.newest);
    this.#compileNewest();
    return true;
  }

  /** Resolves when the policies that judge flows which began at or before `beginMs` are compiled. */
  async compiledTo(beginMs: number): Promise<void> {
    while (this.#compiling !== null && this.#compiling.fromMs <= beginMs) await this.#compiling.done;
  }

  #compileNewest(): void {
    const { newest, newestFromMs } = this.policies;
    const done = this.#compile(newest, newestFromMs)
      .catch((error: unknown) => {
        this.#log.error(
          { err: error, version: newest.version },
          'policy could not be compiled ahead of its flows',
        );
      })
      .then(() => {
        if (this.#compiling === compiling) this.#compiling = null;
      });
    const compiling: Compiling = { fromMs: newestFromMs, done };
    this.#compiling = compiling;
  }

  async #compile(policy: PolicyDocument, fromMs: number): Promise<void> {
    const engine = await PolicyEngine.compile(policy, fromMs, this.#inventory.identities.list);
    this.policies.provide(policy, engine);
    const { version, author, appliedMs } = policy;
    this.#metrics.policyVersion.set(version);
    const from = new Date(appliedMs).toISOString();
    this.#log.info({ version, rules: engine.rules.length, author, from }, 'policy ready');
  }
}

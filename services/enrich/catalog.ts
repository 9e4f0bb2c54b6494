/**
 * Writes what rows point to: identities, workloads and rules. Ids are hashes of content and the tables keep the newest
 * row of each, so rows may be written any number of times, by any enricher.
 */

import type { AddressInterval } from '../../lib/inventory/events.ts';
import { ruleId, workloadId } from '../../lib/inventory/ids.ts';
import type { Inventory, Owner } from '../../lib/inventory/inventory.ts';
import { formatAddress, parseCidr } from '../../lib/net/address.ts';
import type { Store } from '../../lib/store/store.ts';
import { boundariesName, type PolicyDocument } from '../../schemas/policy.ts';
import { dateTime64 } from './time.ts';

type Row = Record<string, unknown>;

/** Rows of one insert at most. */
const chunkRows = 20000;
/** `valid_to` of an interval that lasts, ms: the last second that ClickHouse reads as a number (in the year 2286). */
const openEndMs = 9_999_999_999_000;
/** How often the watermarks of sources are written, ms. */
const sourcesIntervalMs = 2000;

function identityRow(inventory: Inventory, index: number): Row {
  const identity = inventory.identities.list[index];
  if (identity === undefined) throw new RangeError(`no identity ${index}`);
  const { labels } = identity;
  const keys = Object.keys(labels).sort();
  return {
    id: identity.id,
    kind: identity.kind,
    cluster: identity.cluster,
    namespace: identity.namespace,
    name: identity.name,
    zone: identity.zone,
    app: labels.app ?? '',
    role: labels.role ?? '',
    env: labels.env ?? '',
    loc: labels.loc ?? '',
    label_keys: keys,
    label_values: keys.map((key) => labels[key] ?? ''),
  };
}

function ownTime(event: Owner['event']): Partial<AddressInterval> {
  if (event.type === 'name') return {};
  return { sinceMs: event.sinceMs, ...(event.untilMs === undefined ? {} : { untilMs: event.untilMs }) };
}

/** Who had which address with which labels: a row for each part of an interval in which both stayed. */
function workloadRows(inventory: Inventory, owner: Owner): Row[] {
  const { event } = owner;
  // Services and names are no workloads that flows point to, but they have addresses, and a history.
  const { kind } = owner;
  const base =
    event.type === 'name'
      ? {
          id: workloadId('', kind, event.name),
          kind,
          cluster: '',
          namespace: '',
          name: event.name,
          node: '',
          uid: '',
        }
      : {
          id: event.type === 'service' ? workloadId(event.cluster, kind, event.uid) : owner.id,
          kind,
          cluster: event.cluster,
          namespace: event.namespace,
          name: event.name,
          node: event.type === 'service' ? '' : event.node,
          uid: event.uid,
        };
  if (event.type === 'name' && event.addresses.length === 0) return [];
  // Without an address of its own (host network, not started) it is still a workload.
  const intervals: readonly Partial<AddressInterval>[] =
    event.addresses.length === 0 ? [ownTime(event)] : event.addresses;
  const periods = inventory.identityPeriods(owner.index);
  return intervals.flatMap(({ network = '', ip = '::', sinceMs = 0, untilMs = openEndMs }) => {
    const rows: Row[] = [];
    let fromMs = sinceMs;
    for (const period of periods) {
      const toMs = Math.min(untilMs, period.untilMs);
      if (toMs <= fromMs && untilMs > sinceMs) continue;
      rows.push({
        ...base,
        identity: inventory.identities.list[period.identity]?.id ?? 0n,
        network,
        ip: ip.includes(':') ? ip : `::ffff:${ip}`,
        valid_from: dateTime64(fromMs),
        valid_to: dateTime64(toMs),
      });
      fromMs = toMs;
      if (toMs >= untilMs) break;
    }
    return rows;
  });
}

type StoredRange = {
  readonly network: string;
  readonly first: string;
  readonly prefix: number;
  readonly last: string;
  readonly name: string;
  readonly zone: string;
  readonly identity: string;
};

const rangeKey = ({ network, first, prefix }: StoredRange): string => `${network} ${first}/${prefix}`;

const ipv6Text = (bytes: Uint8Array): string => {
  const text = formatAddress(bytes);
  return text.includes(':') ? text : `::ffff:${text}`;
};

/** A row for each CIDR of each range, by its key; of equal CIDRs the last one names, as it does for flows. */
function rangeRows(inventory: Inventory): Map<string, StoredRange> {
  const rows = new Map<string, StoredRange>();
  for (const { network, cidrs, identity } of inventory.ranges()) {
    for (const text of cidrs) {
      const cidr = parseCidr(text);
      if (cidr === null) continue;
      const last = Uint8Array.from(cidr.base);
      for (let bit = cidr.prefix; bit < 128; bit++)
        last[bit >> 3] = (last[bit >> 3] ?? 0) | (0x80 >> (bit & 7));
      const row = {
        network,
        first: ipv6Text(cidr.base),
        prefix: cidr.prefix,
        last: ipv6Text(last),
        name: identity.name,
        zone: identity.zone,
        identity: String(identity.id),
      };
      rows.set(rangeKey(row), row);
    }
  }
  return rows;
}

export class Catalog {
  readonly #store: Store;
  readonly #inventory: Inventory;
  /** 1 for each identity (by index) that was written. */
  #written = new Uint8Array(1024);
  /** Newest version of the policy whose rules are in the store; -1 while that is not known. */
  #rulesVersion = -1;
  #sourcesDueMs = 0;
  /** Generation of the ranges that were written. */
  #rangesWrittenAt = -1;

  constructor(store: Store, inventory: Inventory) {
    this.#store = store;
    this.#inventory = inventory;
  }

  /** Writes the identities among `columns` that were not written yet. To be called before rows that point to them. */
  async writeIdentities(columns: readonly Int32Array[]): Promise<void> {
    const total = this.#inventory.identities.list.length;
    if (total > this.#written.length) {
      const larger = new Uint8Array(total * 2);
      larger.set(this.#written);
      this.#written = larger;
    }
    const fresh = new Set<number>();
    for (const column of columns) {
      for (let row = 0; row < column.length; row++) {
        const index = column[row] ?? 0;
        if (this.#written[index] === 0) fresh.add(index);
      }
    }
    if (fresh.size === 0) return;
    await this.#insert(
      'identities',
      [...fresh].map((index) => identityRow(this.#inventory, index)),
    );
    for (const index of fresh) this.#written[index] = 1;
  }

  /** What fails stays due. */
  async #flushWorkloads(): Promise<void> {
    const { changed, owners } = this.#inventory;
    while (changed.size > 0) {
      const due: number[] = [];
      for (const index of changed) {
        due.push(index);
        if (due.length >= chunkRows) break;
      }
      for (const index of due) changed.delete(index);
      try {
        const present = due.flatMap((index) => owners[index] ?? []);
        const identities = present.flatMap((owner) =>
          this.#inventory.identityPeriods(owner.index).map(({ identity }) => identity),
        );
        await this.writeIdentities([Int32Array.from(identities)]);
        await this.#insert(
          'workloads',
          present.flatMap((owner) => workloadRows(this.#inventory, owner)),
        );
      } catch (error) {
        for (const index of due) changed.add(index);
        throw error;
      }
    }
  }

  /**
   * Writes all that changed since the last call: workloads with their identities, how far sources vouch for themselves,
   * and the rules of further policies. One enricher does it for all.
   */
  async flush(policies: readonly PolicyDocument[]): Promise<void> {
    if (this.#rulesVersion < 0) {
      const [stored] = await this.#store.query<{ policy: number }>('SELECT max(policy) AS policy FROM rules');
      this.#rulesVersion = stored?.policy ?? 0;
    }
    for (const policy of policies) {
      if (policy.version <= this.#rulesVersion) continue;
      await this.#writeRules(policy);
      this.#rulesVersion = policy.version;
    }
    await this.#flushWorkloads();
    await this.#flushRanges();
    await this.#flushSources();
  }

  /** Ranges as they are now; those that the store still has and that are no more are marked. */
  async #flushRanges(): Promise<void> {
    const { rangeGeneration } = this.#inventory;
    if (this.#rangesWrittenAt === rangeGeneration) return;
    const rows = rangeRows(this.#inventory);
    const stored = await this.#store.query<StoredRange>(
      'SELECT network, toString(first) AS first, prefix, toString(last) AS last, name, zone, toString(identity) AS identity FROM ranges FINAL WHERE removed = 0',
    );
    const gone = stored.filter((range) => !rows.has(rangeKey(range)));
    const known = new Map(stored.map((range) => [rangeKey(range), range.identity]));
    const news = [...rows].filter(([key, { identity }]) => known.get(key) !== identity);
    const identities = Int32Array.from([...this.#inventory.ranges()], ({ identity }) => identity.index);
    await this.writeIdentities([identities]);
    await this.#insert('ranges', [
      ...news.map(([, row]) => row),
      ...gone.map((row) => ({ ...row, removed: 1 })),
    ]);
    this.#rangesWrittenAt = rangeGeneration;
  }

  async #flushSources(): Promise<void> {
    if (Date.now() < this.#sourcesDueMs) return;
    const rows = this.#inventory
      .sources()
      .flatMap(({ name, completeToMs }) =>
        Number.isFinite(completeToMs) ? [{ source: name, complete_to: dateTime64(completeToMs) }] : [],
      );
    if (rows.length > 0) await this.#insert('inventory_sources', rows);
    this.#sourcesDueMs = Date.now() + sourcesIntervalMs;
  }

  async #writeRules(policy: PolicyDocument): Promise<void> {
    const boundaries = (policy.boundaries ?? []).map((rule) => ({
      ruleset: boundariesName,
      owner: '',
      rule: { ...rule, action: 'deny' as const },
    }));
    const rules = policy.rulesets.flatMap(({ name, owner, rules: list }) =>
      list.map((rule) => ({ ruleset: name, owner, rule })),
    );
    await this.#insert(
      'rules',
      [...rules, ...boundaries].map(({ ruleset, owner, rule }) => ({
        id: ruleId(ruleset, rule.name),
        policy: policy.version,
        ruleset,
        name: rule.name,
        action: rule.action ?? 'allow',
        owner: rule.owner ?? owner ?? '',
        ticket: rule.ticket ?? '',
        definition: JSON.stringify(rule),
        applied: dateTime64(policy.appliedMs),
        author: policy.author,
      })),
    );
  }

  async #insert(table: string, rows: readonly Row[]): Promise<void> {
    for (let at = 0; at < rows.length; at += chunkRows)
      await this.#store.insertRows(table, rows.slice(at, at + chunkRows));
  }
}

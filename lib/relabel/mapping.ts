/** Names the ends of a slice of flows and judges its pairs, each distinct one once, into tables that rows are joined with. */
import { reasons, verdicts } from '../../schemas/closed-lists.ts';
import { ruleId } from '../inventory/ids.ts';
import { parseAddress } from '../net/address.ts';
import { type PolicyEngine, reasonCodeOf, ruleOf, verdictCodeOf } from '../policy/engine.ts';
import { encodeNativeBlock, enum8Type } from '../store/native.ts';
import type { Store } from '../store/store.ts';
import type { EndNamer, Sightings } from './ends.ts';
import { readIdentities, writeIdentities } from './identity-rows.ts';
import { type Given, keysInsert, pairsInsert, type Slice, sightingsQuery } from './sql.ts';
import type { PresentWorld } from './world.ts';

/** Rows that are read and written at a time. */
const pageRows = 100_000;
/** Ends whose rows are looked at for the second of a change, at a time, and rows of theirs at most. */
const sightedEnds = 200;
const maxSightings = 500_000;

interface KeyRow {
  readonly workload: string;
  readonly identity: string;
  readonly ip: string;
}

interface PairRow {
  readonly src_identity: string;
  readonly src_block: number;
  readonly dst_identity: string;
  readonly dst_block: number;
  readonly dst_port: number;
  readonly protocol: number;
}

/** Index of a verdict's rule, as its id. */
function ruleIdOf(engine: PolicyEngine, packed: number): bigint {
  const compiled = engine.rules[ruleOf(packed)];
  return compiled === undefined ? 0n : ruleId(compiled.ruleset.name, compiled.rule.name);
}

export class Mapping {
  readonly #store: Store;
  readonly #world: PresentWorld;
  readonly #namer: EndNamer;
  readonly #given: Given;
  /** Identities (by index) that are in the store already. */
  readonly #written = new Set<number>();
  /** Tells the blocks of this run from each other. */
  #blockCount = 0;

  constructor(store: Store, world: PresentWorld, namer: EndNamer, given: Given) {
    this.#store = store;
    this.#world = world;
    this.#namer = namer;
    this.#given = given;
  }

  /** Fills `relabel_ends` and `relabel_verdicts` with all that the slice of `table` needs. */
  async prepare(table: string, slice: Slice): Promise<void> {
    const store = this.#store;
    for (const one of ['relabel_keys', 'relabel_ends', 'relabel_pairs', 'relabel_verdicts'])
      await store.command(`TRUNCATE TABLE ${one}`);
    await store.command(keysInsert(table, slice, this.#given));
    const sightings = await this.#look(table, slice);
    await this.#nameEnds(sightings);
    await store.command(pairsInsert(table, slice, this.#given));
    await this.#judgePairs();
  }

  /** Reads what stored identities are made of, where that is not known yet. */
  async learn(identities: Iterable<bigint>): Promise<void> {
    const unknown = [...new Set(identities)].filter((identity) => !this.#namer.knows(identity));
    for (const [identity, content] of await readIdentities(this.#store, unknown))
      this.#namer.learn(identity, content);
  }

  /** Writes identities (by index) that rows are about to point to. */
  async keep(indexes: Iterable<number>): Promise<void> {
    const fresh = [...new Set(indexes)].filter((index) => !this.#written.has(index));
    await writeIdentities(
      this.#store,
      fresh.flatMap((index) => this.#world.inventory.identities.list[index] ?? []),
    );
    for (const index of fresh) this.#written.add(index);
  }

  /** Set of blocks of an address (16 bytes); 0 where rules speak of none. */
  blockSet(address: Uint8Array): number {
    const { engine } = this.#world;
    return engine.hasBlocks ? engine.blockSet(address, 0) : 0;
  }

  /** The packed verdict for two identities (by index) and what they are in. */
  judge(
    source: number,
    sourceBlock: number,
    destination: number,
    destinationBlock: number,
    port: number,
    protocol: number,
  ): number {
    const { engine, inventory } = this.#world;
    return engine.verdict(
      inventory.identities.list,
      source,
      sourceBlock,
      destination,
      destinationBlock,
      port,
      protocol,
    );
  }

  /** Verdict, reason and rule of a packed verdict, as the store has them. */
  verdictOf(packed: number): { verdict: string; reason: string; rule: bigint } {
    return {
      verdict: verdicts[verdictCodeOf(packed)] ?? 'unexplained',
      reason: reasons[reasonCodeOf(packed)] ?? 'no-rule',
      rule: ruleIdOf(this.#world.engine, packed),
    };
  }

  #token(): string {
    return `relabel/${process.pid}/${Date.now()}/${this.#blockCount++}`;
  }

  /**
   * When ends whose labels changed within a second of the slice were stored as what, by subject. Also reads what all stored
   * identities of the slice are made of.
   */
  async #look(table: string, slice: Slice): Promise<Map<string, Map<bigint, number[]>>> {
    const rows = await this.#store.query<{ workload: string; identity: string }>(
      'SELECT DISTINCT workload, identity FROM relabel_keys',
    );
    const ends = rows.map(({ workload, identity }) => ({
      workload: BigInt(workload),
      identity: BigInt(identity),
    }));
    await this.learn(ends.map(({ identity }) => identity));
    const subjects = new Set(ends.flatMap((end) => this.#namer.doubtful(end, slice.from, slice.to) ?? []));
    const found = new Map<string, Map<bigint, number[]>>();
    const asked = ends.filter((end) => subjects.has(this.#namer.subjectOf(end)));
    for (let from = 0; from < asked.length; from += sightedEnds) {
      const some = asked.slice(from, from + sightedEnds);
      const list = (ids: readonly bigint[]): string => `[${ids.join(',')}]`;
      const seen = await this.#store.query<{ workload: string; identity: string; second: number }>(
        sightingsQuery(table, slice),
        {
          workloads: list(some.flatMap(({ workload }) => (workload === 0n ? [] : workload))),
          identities: list(some.flatMap(({ workload, identity }) => (workload === 0n ? identity : []))),
          limit: maxSightings,
        },
      );
      for (const { workload, identity, second } of seen) {
        const end = { workload: BigInt(workload), identity: BigInt(identity) };
        const subject = this.#namer.subjectOf(end);
        const ofSubject = found.get(subject) ?? new Map<bigint, number[]>();
        found.set(subject, ofSubject);
        const seconds = ofSubject.get(end.identity) ?? [];
        ofSubject.set(end.identity, seconds);
        seconds.push(second);
      }
    }
    return found;
  }

  async #nameEnds(sightings: ReadonlyMap<string, Sightings>): Promise<void> {
    let after: KeyRow | undefined;
    for (;;) {
      const page = await this.#store.query<KeyRow>(
        `SELECT workload, identity, ip FROM relabel_keys
         ${after === undefined ? '' : 'WHERE (workload, identity, ip) > ({workload:UInt64}, {identity:UInt64}, {ip:IPv6})'}
         ORDER BY workload, identity, ip LIMIT ${pageRows}`,
        after === undefined ? {} : { ...after },
      );
      if (page.length > 0) await this.#writeEnds(page, sightings);
      after = page.at(-1);
      if (page.length < pageRows) return;
    }
  }

  async #writeEnds(page: readonly KeyRow[], sightings: ReadonlyMap<string, Sightings>): Promise<void> {
    const rows = page.flatMap((key) => {
      const [workload, identity] = [BigInt(key.workload), BigInt(key.identity)];
      const address = parseAddress(key.ip) ?? new Uint8Array(16);
      const block = this.blockSet(address);
      const end = { workload, identity };
      const { periods, known } = this.#namer.name(end, sightings.get(this.#namer.subjectOf(end)));
      return periods.map((period) => ({ workload, identity, address, block, known, ...period }));
    });
    await this.keep(rows.map(({ index }) => index));
    const ips = new Uint8Array(rows.length * 16);
    for (const [i, { address }] of rows.entries()) ips.set(address, i * 16);
    const ids = (pick: (row: (typeof rows)[number]) => bigint) => BigUint64Array.from(rows, pick);
    const block = encodeNativeBlock(rows.length, [
      { name: 'workload', type: 'UInt64', data: ids((row) => row.workload) },
      { name: 'identity', type: 'UInt64', data: ids((row) => row.identity) },
      { name: 'ip', type: 'IPv6', data: ips },
      { name: 'since', type: "DateTime('UTC')", data: Uint32Array.from(rows, (row) => row.sinceS) },
      { name: 'new_identity', type: 'UInt64', data: ids((row) => row.id) },
      { name: 'block', type: 'UInt16', data: Uint16Array.from(rows, (row) => row.block) },
      { name: 'known', type: 'UInt8', data: Uint8Array.from(rows, (row) => (row.known ? 1 : 0)) },
    ]);
    await this.#store.insertBlock('relabel_ends', block, this.#token());
  }

  async #judgePairs(): Promise<void> {
    const columns = 'src_identity, src_block, dst_identity, dst_block, dst_port, protocol';
    let after: PairRow | undefined;
    for (;;) {
      const page = await this.#store.query<PairRow>(
        `SELECT ${columns} FROM relabel_pairs
         ${after === undefined ? '' : `WHERE (${columns}) > ({src_identity:UInt64}, {src_block:UInt16}, {dst_identity:UInt64}, {dst_block:UInt16}, {dst_port:UInt16}, {protocol:UInt8})`}
         ORDER BY ${columns} LIMIT ${pageRows}`,
        after === undefined ? {} : { ...after },
      );
      if (page.length > 0) await this.#writeVerdicts(page);
      after = page.at(-1);
      if (page.length < pageRows) return;
    }
  }

  async #writeVerdicts(page: readonly PairRow[]): Promise<void> {
    const packed = page.map((pair) =>
      this.judge(
        this.#namer.indexOf(BigInt(pair.src_identity)),
        pair.src_block,
        this.#namer.indexOf(BigInt(pair.dst_identity)),
        pair.dst_block,
        pair.dst_port,
        pair.protocol,
      ),
    );
    const { engine } = this.#world;
    const block = encodeNativeBlock(page.length, [
      {
        name: 'src_identity',
        type: 'UInt64',
        data: BigUint64Array.from(page, (pair) => BigInt(pair.src_identity)),
      },
      { name: 'src_block', type: 'UInt16', data: Uint16Array.from(page, (pair) => pair.src_block) },
      {
        name: 'dst_identity',
        type: 'UInt64',
        data: BigUint64Array.from(page, (pair) => BigInt(pair.dst_identity)),
      },
      { name: 'dst_block', type: 'UInt16', data: Uint16Array.from(page, (pair) => pair.dst_block) },
      { name: 'dst_port', type: 'UInt16', data: Uint16Array.from(page, (pair) => pair.dst_port) },
      { name: 'protocol', type: 'UInt8', data: Uint8Array.from(page, (pair) => pair.protocol) },
      { name: 'verdict', type: enum8Type(verdicts), data: Uint8Array.from(packed, verdictCodeOf) },
      { name: 'reason', type: enum8Type(reasons), data: Uint8Array.from(packed, reasonCodeOf) },
      { name: 'rule', type: 'UInt64', data: BigUint64Array.from(packed, (one) => ruleIdOf(engine, one)) },
      { name: 'judged', type: 'UInt8', data: new Uint8Array(page.length).fill(1) },
    ]);
    await this.#store.insertBlock('relabel_verdicts', block, this.#token());
  }
}

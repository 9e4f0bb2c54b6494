/** Holds stored rows against the truth of the estate: what must be there, and what a row that says `exact` must say. */
import assert from 'node:assert/strict';
import type { Truth } from '../../estate/index.ts';
import { identityId, ruleId } from '../../lib/inventory/ids.ts';
import type { Store } from '../../lib/store/store.ts';

/** One end of a flow in the words of the store. */
export interface StoredEnd {
  readonly workload: string;
  readonly identity: string;
  readonly provenance: string;
  readonly certainty: string;
}

export interface StoredRow {
  /** Agent, addresses, ports, protocol, side and second: unique in a run. */
  readonly key: string;
  readonly src: StoredEnd;
  readonly dst: StoredEnd;
  readonly verdict: string;
  readonly reason: string;
  readonly rule: string;
  readonly pending: number;
}

const plainIp = (column: string): string => `replaceOne(IPv6NumToString(${column}), '::ffff:', '')`;
const endOf = (side: string): string =>
  `toString(${side}_workload), toString(${side}_identity), toString(${side}_provenance), toString(${side}_certainty)`;

type EndTuple = readonly [string, string, string, string];

const asEnd = ([workload, identity, provenance, certainty]: EndTuple): StoredEnd => ({
  workload,
  identity,
  provenance,
  certainty,
});

/** The rows of `flows_all` whose source port falls into part `part` of `parts`. */
export async function readRows(store: Store, parts: number, part: number): Promise<StoredRow[]> {
  const rows = await store.query<Omit<StoredRow, 'src' | 'dst'> & { src: EndTuple; dst: EndTuple }>(
    `SELECT concatWithSeparator(' ', agent, ${plainIp('src_ip')}, src_port, ${plainIp('dst_ip')}, dst_port, protocol, side, toUnixTimestamp(time)) AS key,
       [${endOf('src')}] AS src, [${endOf('dst')}] AS dst, verdict, reason, toString(rule) AS rule, pending
     FROM flows_all WHERE src_port % {parts:UInt16} = {part:UInt16}`,
    { parts, part },
  );
  return rows.map((row) => ({ ...row, src: asEnd(row.src), dst: asEnd(row.dst) }));
}

/** What the row of a flow must be once everything is settled. */
export function expectedRow(truth: Truth): StoredRow {
  const src = identityId({
    kind: truth.srcKind,
    cluster: truth.srcCluster,
    namespace: truth.srcNamespace,
    name: truth.srcName,
    zone: truth.srcZone,
    labels: truth.srcLabels,
  });
  const dst = identityId({
    kind: truth.dstKind,
    cluster: truth.dstCluster,
    namespace: truth.dstNamespace,
    name: truth.dstName,
    zone: truth.dstZone,
    labels: truth.dstLabels,
  });
  return {
    key: [
      truth.agent,
      truth.srcIp,
      truth.srcPort,
      truth.dstIp,
      truth.dstPort,
      truth.protocol,
      truth.side,
      truth.startSecond,
    ].join(' '),
    src: {
      workload: String(truth.srcWorkload),
      identity: String(src),
      provenance: truth.srcProvenance,
      certainty: truth.srcCertainty,
    },
    dst: {
      workload: String(truth.dstWorkload),
      identity: String(dst),
      provenance: truth.dstProvenance,
      certainty: truth.dstCertainty,
    },
    verdict: truth.verdict,
    reason: truth.reason,
    rule: truth.rule === '' ? '0' : String(ruleId(truth.ruleset, truth.rule)),
    pending: 0,
  };
}

interface Known {
  readonly truth: Truth;
  readonly wanted: StoredRow;
}

/** The truth of every flow sent, by the key of its row. */
export class TruthBook {
  readonly #byKey = new Map<string, Known>();

  get size(): number {
    return this.#byKey.size;
  }

  add(truths: readonly Truth[]): void {
    for (const truth of truths) {
      const wanted = expectedRow(truth);
      assert.equal(this.#byKey.has(wanted.key), false, `the estate gave one key twice: ${wanted.key}`);
      this.#byKey.set(wanted.key, { truth, wanted });
    }
  }

  /**
   * Reads all rows, part by part, and asks `judge` about each. Returns what is wrong: what `judge` says, rows that nobody
   * sent, rows that are there twice, and flows without a row.
   */
  async compare(
    store: Store,
    judge: (row: StoredRow, wanted: StoredRow, truth: Truth) => string | null,
  ): Promise<string[]> {
    const parts = 8;
    const problems: string[] = [];
    const missing = new Set(this.#byKey.keys());
    for (let part = 0; part < parts; part++)
      problems.push(...(await this.comparePart(store, parts, part, judge, missing)));
    for (const key of missing) problems.push(`missing: ${key}`);
    return problems;
  }

  /** The same for one part of the rows that are there by now; takes those it sees out of `missing`. */
  async comparePart(
    store: Store,
    parts: number,
    part: number,
    judge: (row: StoredRow, wanted: StoredRow, truth: Truth) => string | null,
    missing: Set<string> = new Set(),
  ): Promise<string[]> {
    const problems: string[] = [];
    const seen = new Set<string>();
    for (const row of await readRows(store, parts, part)) {
      const known = this.#byKey.get(row.key);
      if (known === undefined) problems.push(`nobody sent: ${JSON.stringify(row)}`);
      else if (seen.has(row.key)) problems.push(`twice: ${JSON.stringify(row)}`);
      else {
        const problem = judge(row, known.wanted, known.truth);
        if (problem !== null)
          problems.push(
            `${problem}\n  stored ${JSON.stringify(row)}\n  wanted ${JSON.stringify(known.wanted)}`,
          );
      }
      seen.add(row.key);
      missing.delete(row.key);
    }
    return problems;
  }
}

const isSameEnd = (row: StoredEnd, wanted: StoredEnd): boolean =>
  row.workload === wanted.workload &&
  row.identity === wanted.identity &&
  row.provenance === wanted.provenance;

/** What is wrong with a row that may be uncertain, but not wrong where it says that it is certain; null: nothing. */
export function judgeExact(row: StoredRow, wanted: StoredRow): string | null {
  for (const end of ['src', 'dst'] as const) {
    if (row[end].certainty === 'exact' && !isSameEnd(row[end], wanted[end]))
      return `${end} is exact and wrong`;
  }
  const isNamedRight = row.src.identity === wanted.src.identity && row.dst.identity === wanted.dst.identity;
  const isJudgedRight =
    row.verdict === wanted.verdict && row.reason === wanted.reason && row.rule === wanted.rule;
  return isNamedRight && !isJudgedRight ? 'both ends are right, the verdict is not' : null;
}

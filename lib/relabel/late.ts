/**
 * Relabels settled rows of `flows_late`: as repairs do, a row is cancelled and followed by its next version, both in one
 * insert, and the views keep the rollups. Rows that are pending get the present labels when they are repaired.
 */
import { parseAddress } from '../net/address.ts';
import type { Store } from '../store/store.ts';
import type { EndNamer } from './ends.ts';
import type { Mapping } from './mapping.ts';
import type { Given } from './sql.ts';

/** Rows that are looked at, and written anew, at a time. */
const pageRows = 20_000;

interface LateRow extends Readonly<Record<string, unknown>> {
  readonly bus_partition: number;
  readonly block: string;
  readonly row: number;
  readonly version: number;
  readonly start_epoch_ms: string;
  readonly src_ip: string;
  readonly dst_ip: string;
  readonly dst_port: number;
  readonly protocol: number;
  readonly src_workload: string;
  readonly dst_workload: string;
  readonly src_identity: string;
  readonly dst_identity: string;
  readonly verdict: string;
  readonly reason: string;
  readonly rule: string;
  readonly policy: number;
}

export interface LateResult {
  readonly flows: number;
  readonly changed: number;
}

export interface LateParts {
  readonly store: Store;
  readonly mapping: Mapping;
  readonly namer: EndNamer;
  readonly given: Given;
  /** Name of the run, for tokens. */
  readonly runId: string;
  /** Only counts. */
  readonly dryRun: boolean;
}

interface NewNames {
  readonly src_identity: string;
  readonly dst_identity: string;
  readonly verdict: string;
  readonly reason: string;
  readonly rule: string;
  readonly policy: number;
}

function rename(parts: LateParts, row: LateRow): { names: NewNames; indexes: readonly number[] } {
  const { mapping, namer, given } = parts;
  const startMs = Number(row.start_epoch_ms);
  const end = (workload: string, identity: string) =>
    namer.at({ workload: BigInt(workload), identity: BigInt(identity) }, startMs);
  const source = end(row.src_workload, row.src_identity);
  const destination = end(row.dst_workload, row.dst_identity);
  const packed = mapping.judge(
    source.index,
    mapping.blockSet(parseAddress(row.src_ip) ?? new Uint8Array(16)),
    destination.index,
    mapping.blockSet(parseAddress(row.dst_ip) ?? new Uint8Array(16)),
    row.dst_port,
    row.protocol,
  );
  const { verdict, reason, rule } = mapping.verdictOf(packed);
  return {
    names: {
      src_identity: String(source.id),
      dst_identity: String(destination.id),
      verdict,
      reason,
      rule: String(rule),
      policy: given.policy,
    },
    indexes: [source.index, destination.index],
  };
}

function differs(row: LateRow, names: NewNames): boolean {
  return (
    row.src_identity !== names.src_identity ||
    row.dst_identity !== names.dst_identity ||
    row.verdict !== names.verdict ||
    row.reason !== names.reason ||
    row.rule !== names.rule
  );
}

/** Relabels them all, from the second `given.since` on. What is done already is found done. */
export async function relabelLate(parts: LateParts): Promise<LateResult> {
  const { store, mapping, given, runId, dryRun } = parts;
  let [flows, changed] = [0, 0];
  let after: LateRow | undefined;
  for (;;) {
    const page: LateRow[] = await store.query<LateRow>(
      `SELECT *, toUnixTimestamp64Milli(start_ms) AS start_epoch_ms FROM flows_late FINAL
       WHERE sign = 1 AND pending = 0 AND policy <= {policy:UInt32}
         AND time >= toDateTime({since:UInt32}, 'UTC')
         ${after === undefined ? '' : 'AND (bus_partition, block, row) > ({partition:UInt32}, {block:UInt64}, {row:UInt32})'}
       ORDER BY bus_partition, block, row LIMIT ${pageRows}`,
      {
        policy: given.policy,
        since: given.since,
        ...(after === undefined
          ? {}
          : { partition: after.bus_partition, block: after.block, row: after.row }),
      },
    );
    await mapping.learn(page.flatMap((row) => [BigInt(row.src_identity), BigInt(row.dst_identity)]));
    const renamed = page.map((row) => ({ row, ...rename(parts, row) }));
    flows += page.length;
    changed += renamed.filter(({ row, names }) => differs(row, names)).length;
    const due = renamed.filter(({ row, names }) => row.policy !== given.policy || differs(row, names));
    const [first] = due;
    if (first !== undefined && !dryRun) {
      await mapping.keep(due.flatMap(({ indexes }) => indexes));
      const { bus_partition, block, row } = first.row;
      await store.insertRows(
        'flows_late',
        due.flatMap(({ row: { start_epoch_ms: _, written: __, ...stored }, names }) => [
          { ...stored, sign: -1 },
          { ...stored, ...names, version: Number(stored.version) + 1 },
        ]),
        `relabel/${runId}/${bus_partition}/${block}/${row}`,
      );
    }
    after = page.at(-1);
    if (page.length < pageRows) return { flows, changed };
  }
}

/** Turns resolved columns into the Native block of table `flows`. */

import type { Inventory } from '../../lib/inventory/inventory.ts';
import type { PolicyEngine } from '../../lib/policy/engine.ts';
import {
  encodeNativeBlock,
  enum8Type,
  fixedWidth,
  type NativeBlock,
  type NativeColumn,
} from '../../lib/store/native.ts';
import type { FlowColumns } from '../../lib/wire/columns.ts';
import {
  actions,
  certainties,
  provenances,
  reasons,
  sides,
  states,
  verdicts,
} from '../../schemas/closed-lists.ts';
import { firstPass } from './late.ts';
import type { BatchRows, ResolvedColumns } from './resolve.ts';

/** A batch within a block, with what its rows need. */
export interface NamedBatchRows extends BatchRows {
  readonly agentId: string;
  readonly networkName: string;
}

/** What the store gets of each row besides what was decoded; 64-bit numbers as pairs of words. */
export interface StoredColumns {
  readonly seconds: Uint32Array;
  readonly sourceIdentity: Uint32Array;
  readonly destinationIdentity: Uint32Array;
  readonly verdict: Uint8Array;
  readonly reason: Uint8Array;
  readonly rule: Uint32Array;
  readonly policy: Uint32Array;
  /** Indexes of words. */
  readonly actionReason: Uint32Array;
  readonly dnsName: Uint32Array;
  readonly processName: Uint32Array;
  readonly agent: Uint32Array;
}

export function makeStoredColumns(capacity: number): StoredColumns {
  return {
    seconds: new Uint32Array(capacity),
    sourceIdentity: new Uint32Array(capacity * 2),
    destinationIdentity: new Uint32Array(capacity * 2),
    verdict: new Uint8Array(capacity),
    reason: new Uint8Array(capacity),
    rule: new Uint32Array(capacity * 2),
    policy: new Uint32Array(capacity),
    actionReason: new Uint32Array(capacity),
    dnsName: new Uint32Array(capacity),
    processName: new Uint32Array(capacity),
    agent: new Uint32Array(capacity),
  };
}

/** What the rows of a slice are made of. */
export interface SliceContent {
  readonly columns: FlowColumns;
  readonly resolved: ResolvedColumns;
  /** Filled when a block is made. */
  readonly stored: StoredColumns;
  readonly batches: readonly NamedBatchRows[];
  readonly inventory: Inventory;
  /** Those that judged, see `judgeBlock`. */
  readonly engines: readonly PolicyEngine[];
}

/** Collects the distinct texts of a LowCardinality column. */
class Words {
  readonly list: string[] = [''];
  readonly #known = new Map<string, number>([['', 0]]);

  index(text: string): number {
    let index = this.#known.get(text);
    if (index === undefined) {
      index = this.list.length;
      this.list.push(text);
      this.#known.set(text, index);
    }
    return index;
  }
}

/** Indexes of the texts that rows refer to; each reference is decoded once. */
function indexTexts(
  { columns }: SliceContent,
  references: Uint32Array,
  words: Words,
  indexes: Uint32Array,
): Uint32Array {
  let byReference: Int32Array | null = null;
  for (let row = 0; row < columns.count; row++) {
    const reference = references[row] ?? 0;
    let index = 0;
    if (reference !== 0) {
      // Most slices have few texts: the table of references is made when the first one comes.
      byReference ??= new Int32Array(columns.texts.count).fill(-1);
      index = byReference[reference] ?? -1;
      if (index < 0) {
        index = words.index(columns.texts.text(reference));
        byReference[reference] = index;
      }
    }
    indexes[row] = index;
  }
  return indexes;
}

/** Indexes of a text of each batch, for all of its rows. */
function indexBatches(
  { batches }: SliceContent,
  textOf: (batch: NamedBatchRows) => string,
  words: Words,
  indexes: Uint32Array,
): Uint32Array {
  for (const batch of batches)
    indexes.fill(words.index(textOf(batch)), batch.firstRow, batch.firstRow + batch.rowCount);
  return indexes;
}

/** Ids (pairs of words) of `indexes`. */
function gatherIds(count: number, indexes: Int32Array, words: Uint32Array, into: Uint32Array): void {
  for (let row = 0; row < count; row++) {
    const index = indexes[row] ?? 0;
    into[row * 2] = words[index * 2] ?? 0;
    into[row * 2 + 1] = words[index * 2 + 1] ?? 0;
  }
}

function unpackVerdicts(
  count: number,
  { verdict: packed, judge }: ResolvedColumns,
  engines: readonly PolicyEngine[],
  { verdict, reason, rule, policy }: StoredColumns,
): void {
  const words = engines.map((engine) => engine.ruleIdWords);
  const versions = engines.map((engine) => engine.version);
  for (let row = 0; row < count; row++) {
    const value = packed[row] ?? 0;
    const engine = judge[row] ?? 0;
    const ruleWords = words[engine];
    verdict[row] = value & 3;
    reason[row] = (value >> 2) & 15;
    const at = (value >>> 6) * 2;
    rule[row * 2] = ruleWords?.[at] ?? 0;
    rule[row * 2 + 1] = ruleWords?.[at + 1] ?? 0;
    policy[row] = versions[engine] ?? 0;
  }
}

/** Fills what does not depend on other slices. */
function fillStored({ columns, resolved, stored, inventory, engines }: SliceContent): void {
  const { count, startMs } = columns;
  const { idWords } = inventory.identities;
  const { seconds } = stored;
  for (let row = 0; row < count; row++) seconds[row] = (startMs[row] ?? 0) / 1000;
  gatherIds(count, resolved.source.identity, idWords, stored.sourceIdentity);
  gatherIds(count, resolved.destination.identity, idWords, stored.destinationIdentity);
  unpackVerdicts(count, resolved, engines, stored);
}

/** Rows as runs: from, to (not included), from, to, ... ascending. */
export type Runs = readonly number[];

/** The runs of the rows below `count` that `isIn` says. */
export function runsOf(count: number, isIn: (row: number) => boolean): number[] {
  const runs: number[] = [];
  let inside = false;
  for (let row = 0; row < count; row++) {
    if (isIn(row) === inside) continue;
    inside = !inside;
    runs.push(row);
  }
  if (inside) runs.push(count);
  return runs;
}

export function countOf(runs: Runs): number {
  let count = 0;
  for (let i = 0; i < runs.length; i += 2) count += (runs[i + 1] ?? 0) - (runs[i] ?? 0);
  return count;
}

/** Rows of one slice: all of them, or those of `runs`. */
export interface PickedRows {
  readonly content: SliceContent;
  readonly runs: Runs | null;
}

const countPicked = ({ content, runs }: PickedRows): number =>
  runs === null ? content.columns.count : countOf(runs);

/** A column of a block: where each slice has its values, of all rows; of texts the indexes, among the words of all slices. */
type ColumnSource<P> =
  | { readonly name: string; readonly type: string; readonly values: (slice: P) => ArrayBufferView }
  | { readonly name: string; readonly indexes: (slice: P, words: Words) => Uint32Array };

const lowCardinality = 'LowCardinality(String)';
const provenanceType = enum8Type(provenances);
const certaintyType = enum8Type(certainties);

function column(
  name: string,
  type: string,
  values: (content: SliceContent) => ArrayBufferView,
): ColumnSource<PickedRows> {
  return { name, type, values: ({ content }) => values(content) };
}

function texts(
  name: string,
  indexes: (content: SliceContent, words: Words) => Uint32Array,
): ColumnSource<PickedRows> {
  return { name, indexes: ({ content }, words) => indexes(content, words) };
}

/** Columns of table `flows`. */
const flowColumns: readonly ColumnSource<PickedRows>[] = [
  column('time', 'DateTime', ({ stored }) => stored.seconds),
  column('duration_ms', 'UInt32', ({ columns }) => columns.durationMs),
  column('src_ip', 'IPv6', ({ columns }) => columns.source),
  column('src_port', 'UInt16', ({ columns }) => columns.sourcePort),
  column('dst_ip', 'IPv6', ({ columns }) => columns.destination),
  column('dst_port', 'UInt16', ({ columns }) => columns.destinationPort),
  column('protocol', 'UInt8', ({ columns }) => columns.protocol),
  column('original_dst_ip', 'IPv6', ({ columns }) => columns.originalDestination),
  column('original_dst_port', 'UInt16', ({ columns }) => columns.originalDestinationPort),
  column('src_workload', 'UInt64', ({ resolved }) => resolved.source.workload),
  column('dst_workload', 'UInt64', ({ resolved }) => resolved.destination.workload),
  column('src_identity', 'UInt64', ({ stored }) => stored.sourceIdentity),
  column('dst_identity', 'UInt64', ({ stored }) => stored.destinationIdentity),
  column('src_provenance', provenanceType, ({ resolved }) => resolved.source.provenance),
  column('src_certainty', certaintyType, ({ resolved }) => resolved.source.certainty),
  column('dst_provenance', provenanceType, ({ resolved }) => resolved.destination.provenance),
  column('dst_certainty', certaintyType, ({ resolved }) => resolved.destination.certainty),
  column('side', enum8Type(sides), ({ columns }) => columns.side),
  column('state', enum8Type(states), ({ columns }) => columns.state),
  column('action', enum8Type(actions), ({ columns }) => columns.action),
  texts('action_reason', (content, words) =>
    indexTexts(content, content.columns.actionReason, words, content.stored.actionReason),
  ),
  column('flags', 'UInt16', ({ columns }) => columns.flags),
  column('verdict', enum8Type(verdicts), ({ stored }) => stored.verdict),
  column('reason', enum8Type(reasons), ({ stored }) => stored.reason),
  column('rule', 'UInt64', ({ stored }) => stored.rule),
  column('policy', 'UInt32', ({ stored }) => stored.policy),
  column('bytes_forward', 'UInt64', ({ columns }) => columns.bytesForward),
  column('bytes_reverse', 'UInt64', ({ columns }) => columns.bytesReverse),
  column('packets_forward', 'UInt64', ({ columns }) => columns.packetsForward),
  column('packets_reverse', 'UInt64', ({ columns }) => columns.packetsReverse),
  column('connections', 'UInt32', ({ columns }) => columns.connectionCount),
  texts('dns_name', (content, words) =>
    indexTexts(content, content.columns.dnsName, words, content.stored.dnsName),
  ),
  texts('process', (content, words) =>
    indexTexts(content, content.columns.processName, words, content.stored.processName),
  ),
  texts('agent', (content, words) =>
    indexBatches(content, ({ agentId }) => agentId, words, content.stored.agent),
  ),
];

/** The picked rows of `values`, which has all; shares its memory where these are all. */
function pick(values: ArrayBufferView, width: number, { content, runs }: PickedRows): Uint8Array {
  const bytes = new Uint8Array(values.buffer, values.byteOffset, content.columns.count * width);
  if (runs === null) return bytes;
  const picked = new Uint8Array(countOf(runs) * width);
  let at = 0;
  for (let i = 0; i < runs.length; i += 2) {
    const run = bytes.subarray((runs[i] ?? 0) * width, (runs[i + 1] ?? 0) * width);
    picked.set(run, at);
    at += run.length;
  }
  return picked;
}

/** One block of the picked rows of all slices. */
function blockOf<P extends PickedRows>(
  slices: readonly P[],
  sources: readonly ColumnSource<P>[],
): NativeBlock {
  for (const { content } of slices) fillStored(content);
  const columns = sources.map((source): NativeColumn => {
    const { name } = source;
    if ('values' in source) {
      const { type, values } = source;
      const width = fixedWidth(type) ?? 0;
      return { name, type, data: { pieces: slices.map((slice) => pick(values(slice), width, slice)) } };
    }
    const words = new Words();
    const width = 4;
    const pieces = slices.map((slice) => pick(source.indexes(slice, words), width, slice));
    return { name, type: lowCardinality, data: { dictionary: words.list, indexes: { width, pieces } } };
  });
  return encodeNativeBlock(
    slices.reduce((sum, slice) => sum + countPicked(slice), 0),
    columns,
  );
}

/**
 * The block of table `flows` of the picked rows. It shares memory with them: leave them alone until the insert is done.
 * However the rows lie in slices, it is one block, as a token stands for one.
 */
export function flowsBlock(slices: readonly PickedRows[]): NativeBlock {
  return blockOf(slices, flowColumns);
}

/** Late rows of a slice whose rows begin at `firstRow` of the block. */
export interface LateRows extends PickedRows {
  readonly firstRow: number;
}

/**
 * Late rows as they are decided: what `flows` has, and all that it takes to name them again. Shares memory as
 * {@link flowsBlock} does, and with it.
 */
export function lateBlock(slices: readonly LateRows[], partition: number, block: number): NativeBlock {
  const each = (slice: LateRows): number => slice.content.columns.count;
  return blockOf<LateRows>(slices, [
    ...flowColumns,
    {
      name: 'start_ms',
      type: 'DateTime64(3)',
      values: (slice) =>
        BigInt64Array.from({ length: each(slice) }, (_, row) =>
          BigInt(Math.round(slice.content.columns.startMs[row] ?? 0)),
        ),
    },
    { name: 'tolerance_ms', type: 'UInt32', values: ({ content }) => tolerances(content) },
    {
      name: 'network',
      indexes: (slice, words) =>
        indexBatches(slice.content, ({ networkName }) => networkName, words, new Uint32Array(each(slice))),
    },
    { name: 'src_hint', indexes: (slice, words) => hints(slice, slice.content.columns.sourceHint, words) },
    {
      name: 'dst_hint',
      indexes: (slice, words) => hints(slice, slice.content.columns.destinationHint, words),
    },
    {
      name: 'bus_partition',
      type: 'UInt32',
      values: (slice) => new Uint32Array(each(slice)).fill(partition),
    },
    { name: 'block', type: 'UInt64', values: (slice) => new BigUint64Array(each(slice)).fill(BigInt(block)) },
    {
      name: 'row',
      type: 'UInt32',
      values: (slice) => Uint32Array.from({ length: each(slice) }, (_, row) => slice.firstRow + row),
    },
    { name: 'pass', type: 'UInt32', values: (slice) => new Uint32Array(each(slice)).fill(firstPass) },
    { name: 'version', type: 'UInt32', values: (slice) => new Uint32Array(each(slice)).fill(firstPass) },
    { name: 'sign', type: 'Int8', values: (slice) => new Int8Array(each(slice)).fill(1) },
    { name: 'pending', type: 'UInt8', values: (slice) => new Uint8Array(each(slice)).fill(1) },
  ]);
}

function tolerances({ columns, batches }: SliceContent): Uint32Array {
  const tolerance = new Uint32Array(columns.count);
  for (const { firstRow, rowCount, toleranceMs } of batches)
    tolerance.fill(Math.ceil(toleranceMs), firstRow, firstRow + rowCount);
  return tolerance;
}

function hints({ content }: LateRows, references: Uint32Array, words: Words): Uint32Array {
  return indexTexts(content, references, words, new Uint32Array(content.columns.count));
}

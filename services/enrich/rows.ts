/** Turns resolved columns into the Native block of table `flows`. */

import type { Inventory } from '../../lib/inventory/inventory.ts';
import type { PolicyEngine } from '../../lib/policy/engine.ts';
import {
  type DictionaryColumn,
  encodeNativeBlock,
  enum8Type,
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

/** Collects the distinct texts of a LowCardinality column, decoding each reference once. */
class TextColumn {
  readonly dictionary: string[] = [''];
  readonly #known = new Map<string, number>([['', 0]]);

  index(text: string): number {
    let index = this.#known.get(text);
    if (index === undefined) {
      index = this.dictionary.length;
      this.dictionary.push(text);
      this.#known.set(text, index);
    }
    return index;
  }
}

function textColumn(columns: FlowColumns, references: Uint32Array): DictionaryColumn {
  const column = new TextColumn();
  const indexes = new Uint32Array(columns.count);
  let byReference: Int32Array | null = null;
  for (let row = 0; row < columns.count; row++) {
    const reference = references[row] ?? 0;
    if (reference === 0) continue;
    // Most blocks have few texts: the table of references is made when the first one comes.
    byReference ??= new Int32Array(columns.texts.count).fill(-1);
    let index = byReference[reference] ?? -1;
    if (index < 0) {
      index = column.index(columns.texts.text(reference));
      byReference[reference] = index;
    }
    indexes[row] = index;
  }
  return { dictionary: column.dictionary, indexes };
}

/** A text of each batch, for all of its rows. */
function batchColumn(
  count: number,
  batches: readonly NamedBatchRows[],
  textOf: (batch: NamedBatchRows) => string,
): DictionaryColumn {
  const column = new TextColumn();
  const indexes = new Uint32Array(count);
  for (const batch of batches)
    indexes.fill(column.index(textOf(batch)), batch.firstRow, batch.firstRow + batch.rowCount);
  return { dictionary: column.dictionary, indexes };
}

/** Ids (pairs of words) of `indexes`. */
function gatherIds(count: number, indexes: Int32Array, words: Uint32Array): BigUint64Array {
  const out = new Uint32Array(count * 2);
  for (let row = 0; row < count; row++) {
    const index = indexes[row] ?? 0;
    out[row * 2] = words[index * 2] ?? 0;
    out[row * 2 + 1] = words[index * 2 + 1] ?? 0;
  }
  return new BigUint64Array(out.buffer);
}

/** Pairs of words as 64-bit numbers. */
function longs(count: number, words: Uint32Array): BigUint64Array {
  return new BigUint64Array(words.buffer, words.byteOffset, count);
}

function verdictColumns(
  count: number,
  { verdict: packed, judge }: ResolvedColumns,
  engines: readonly PolicyEngine[],
): { verdict: Uint8Array; reason: Uint8Array; rule: BigUint64Array; policy: Uint32Array } {
  const words = engines.map((engine) => engine.ruleIdWords);
  const versions = engines.map((engine) => engine.version);
  const verdict = new Uint8Array(count);
  const reason = new Uint8Array(count);
  const rule = new Uint32Array(count * 2);
  const policy = new Uint32Array(count);
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
  return { verdict, reason, rule: new BigUint64Array(rule.buffer), policy };
}

const provenanceType = enum8Type(provenances);
const certaintyType = enum8Type(certainties);

/** What the rows of a slice are made of. */
export interface SliceContent {
  readonly columns: FlowColumns;
  readonly resolved: ResolvedColumns;
  readonly batches: readonly NamedBatchRows[];
  readonly inventory: Inventory;
  /** Those that judged, see `judgeBlock`. */
  readonly engines: readonly PolicyEngine[];
}

/** A column of all rows of a slice. */
interface RowColumn extends NativeColumn {
  readonly data:
    | Uint8Array
    | Int8Array
    | Uint16Array
    | Uint32Array
    | BigUint64Array
    | Float64Array
    | DictionaryColumn;
}

/** Columns of table `flows` for all rows of the block. They share memory with it. */
function flowColumns({ columns, resolved, batches, inventory, engines }: SliceContent): RowColumn[] {
  const count = columns.count;
  const { source, destination } = resolved;
  const seconds = new Uint32Array(count);
  for (let row = 0; row < count; row++) seconds[row] = (columns.startMs[row] ?? 0) / 1000;
  const { verdict, reason, rule, policy } = verdictColumns(count, resolved, engines);
  const identityWords = inventory.identities.idWords;
  return [
    { name: 'time', type: 'DateTime', data: seconds },
    { name: 'duration_ms', type: 'UInt32', data: columns.durationMs.subarray(0, count) },
    { name: 'src_ip', type: 'IPv6', data: columns.source.subarray(0, count * 16) },
    { name: 'src_port', type: 'UInt16', data: columns.sourcePort.subarray(0, count) },
    { name: 'dst_ip', type: 'IPv6', data: columns.destination.subarray(0, count * 16) },
    { name: 'dst_port', type: 'UInt16', data: columns.destinationPort.subarray(0, count) },
    { name: 'protocol', type: 'UInt8', data: columns.protocol.subarray(0, count) },
    { name: 'original_dst_ip', type: 'IPv6', data: columns.originalDestination.subarray(0, count * 16) },
    { name: 'original_dst_port', type: 'UInt16', data: columns.originalDestinationPort.subarray(0, count) },
    { name: 'src_workload', type: 'UInt64', data: longs(count, source.workload) },
    { name: 'dst_workload', type: 'UInt64', data: longs(count, destination.workload) },
    { name: 'src_identity', type: 'UInt64', data: gatherIds(count, source.identity, identityWords) },
    { name: 'dst_identity', type: 'UInt64', data: gatherIds(count, destination.identity, identityWords) },
    { name: 'src_provenance', type: provenanceType, data: source.provenance.subarray(0, count) },
    { name: 'src_certainty', type: certaintyType, data: source.certainty.subarray(0, count) },
    { name: 'dst_provenance', type: provenanceType, data: destination.provenance.subarray(0, count) },
    { name: 'dst_certainty', type: certaintyType, data: destination.certainty.subarray(0, count) },
    { name: 'side', type: enum8Type(sides), data: columns.side.subarray(0, count) },
    { name: 'state', type: enum8Type(states), data: columns.state.subarray(0, count) },
    { name: 'action', type: enum8Type(actions), data: columns.action.subarray(0, count) },
    {
      name: 'action_reason',
      type: 'LowCardinality(String)',
      data: textColumn(columns, columns.actionReason),
    },
    { name: 'flags', type: 'UInt16', data: columns.flags.subarray(0, count) },
    { name: 'verdict', type: enum8Type(verdicts), data: verdict },
    { name: 'reason', type: enum8Type(reasons), data: reason },
    { name: 'rule', type: 'UInt64', data: rule },
    { name: 'policy', type: 'UInt32', data: policy },
    { name: 'bytes_forward', type: 'UInt64', data: longs(count, columns.bytesForward) },
    { name: 'bytes_reverse', type: 'UInt64', data: longs(count, columns.bytesReverse) },
    { name: 'packets_forward', type: 'UInt64', data: longs(count, columns.packetsForward) },
    { name: 'packets_reverse', type: 'UInt64', data: longs(count, columns.packetsReverse) },
    { name: 'connections', type: 'UInt32', data: columns.connectionCount.subarray(0, count) },
    { name: 'dns_name', type: 'LowCardinality(String)', data: textColumn(columns, columns.dnsName) },
    { name: 'process', type: 'LowCardinality(String)', data: textColumn(columns, columns.processName) },
    {
      name: 'agent',
      type: 'LowCardinality(String)',
      data: batchColumn(count, batches, ({ agentId }) => agentId),
    },
  ];
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

/** Calls `onRun` for each run of the rows. */
function eachRun({ content, runs }: PickedRows, onRun: (from: number, to: number) => void): void {
  if (runs === null) onRun(0, content.columns.count);
  else for (let i = 0; i < runs.length; i += 2) onRun(runs[i] ?? 0, runs[i + 1] ?? 0);
}

/** The same column of several slices. */
interface ColumnPiece {
  readonly column: RowColumn;
  readonly picked: PickedRows;
}

/** The words of all pieces, each once. */
function joinTexts(
  pieces: readonly { data: DictionaryColumn; picked: PickedRows }[],
  count: number,
): DictionaryColumn {
  const words = new TextColumn();
  const indexes = new Uint32Array(count);
  let at = 0;
  for (const { data, picked } of pieces) {
    const meant = data.dictionary.map((word) => words.index(word));
    eachRun(picked, (from, to) => {
      for (let row = from; row < to; row++) indexes[at++] = meant[data.indexes[row] ?? 0] ?? 0;
    });
  }
  return { dictionary: words.dictionary, indexes };
}

type FixedData = Exclude<RowColumn['data'], DictionaryColumn>;

const isFixed = (data: RowColumn['data']): data is FixedData => ArrayBuffer.isView(data);

function asKind(data: FixedData, bytes: ArrayBuffer): FixedData {
  if (data instanceof BigUint64Array) return new BigUint64Array(bytes);
  if (data instanceof Float64Array) return new Float64Array(bytes);
  if (data instanceof Uint32Array) return new Uint32Array(bytes);
  if (data instanceof Uint16Array) return new Uint16Array(bytes);
  if (data instanceof Int8Array) return new Int8Array(bytes);
  return new Uint8Array(bytes);
}

/** One column of all pieces. It shares memory with a piece that is alone and whole. */
function joinPieces(pieces: readonly [ColumnPiece, ...ColumnPiece[]], count: number): RowColumn {
  const [{ column: first, picked }] = pieces;
  if (pieces.length === 1 && picked.runs === null) return first;
  const { name, type } = first;
  if (!isFixed(first.data)) {
    const texts = pieces.flatMap(({ column: { data }, picked }) => (isFixed(data) ? [] : [{ data, picked }]));
    return { name, type, data: joinTexts(texts, count) };
  }
  const width = type === 'IPv6' ? 16 : first.data.BYTES_PER_ELEMENT;
  const joined = new Uint8Array(count * width);
  let at = 0;
  for (const { column, picked } of pieces) {
    const { data } = column;
    if (!isFixed(data)) continue;
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    eachRun(picked, (from, to) => {
      const run = bytes.subarray(from * width, to * width);
      joined.set(run, at);
      at += run.length;
    });
  }
  return { name, type, data: asKind(first.data, joined.buffer) };
}

/** One block of the picked rows of all slices, with the columns that `columnsOf` gives of all rows of each. */
function joinSlices<P extends PickedRows>(
  slices: readonly P[],
  columnsOf: (slice: P) => RowColumn[],
): NativeBlock {
  const count = slices.reduce((sum, slice) => sum + countPicked(slice), 0);
  const all = slices.map((slice) => ({ picked: slice, columns: columnsOf(slice) }));
  const joined = (all[0]?.columns ?? []).flatMap((_, i) => {
    const [first, ...others] = all.flatMap(({ picked, columns }) => {
      const column = columns[i];
      return column === undefined ? [] : [{ column, picked }];
    });
    return first === undefined ? [] : [joinPieces([first, ...others], count)];
  });
  return encodeNativeBlock(count, joined);
}

/**
 * The block of table `flows` of the picked rows. It shares memory with them: leave them alone until the insert is done.
 * However the rows lie in slices, it is one block, as a token stands for one.
 */
export function flowsBlock(slices: readonly PickedRows[]): NativeBlock {
  return joinSlices(slices, ({ content }) => flowColumns(content));
}

/** Late rows of a slice whose rows begin at `firstRow` of the block. */
export interface LateRows extends PickedRows {
  readonly firstRow: number;
}

/** Late rows as they are decided: what `flows` has, and all that it takes to name them again. */
export function lateBlock(slices: readonly LateRows[], partition: number, block: number): NativeBlock {
  return joinSlices(slices, ({ content, firstRow }) => lateColumns(content, firstRow, partition, block));
}

function lateColumns(content: SliceContent, first: number, partition: number, block: number): RowColumn[] {
  const { columns, batches } = content;
  const count = columns.count;
  const tolerance = new Uint32Array(count);
  for (const { firstRow, rowCount, toleranceMs } of batches)
    tolerance.fill(Math.ceil(toleranceMs), firstRow, firstRow + rowCount);
  const lowCardinality = 'LowCardinality(String)';
  return [
    ...flowColumns(content),
    { name: 'start_ms', type: 'DateTime64(3)', data: columns.startMs.slice(0, count).map(Math.round) },
    { name: 'tolerance_ms', type: 'UInt32', data: tolerance },
    {
      name: 'network',
      type: lowCardinality,
      data: batchColumn(count, batches, ({ networkName }) => networkName),
    },
    { name: 'src_hint', type: lowCardinality, data: textColumn(columns, columns.sourceHint) },
    { name: 'dst_hint', type: lowCardinality, data: textColumn(columns, columns.destinationHint) },
    { name: 'bus_partition', type: 'UInt32', data: new Uint32Array(count).fill(partition) },
    { name: 'block', type: 'UInt64', data: new BigUint64Array(count).fill(BigInt(block)) },
    { name: 'row', type: 'UInt32', data: Uint32Array.from({ length: count }, (_, row) => first + row) },
    { name: 'pass', type: 'UInt32', data: new Uint32Array(count).fill(firstPass) },
    { name: 'version', type: 'UInt32', data: new Uint32Array(count).fill(firstPass) },
    { name: 'sign', type: 'Int8', data: new Int8Array(count).fill(1) },
    { name: 'pending', type: 'UInt8', data: new Uint8Array(count).fill(1) },
  ];
}

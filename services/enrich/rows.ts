/** Turns resolved columns into the Native block of table `flows`. */

import { ruleId } from '../../lib/inventory/ids.ts';
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
import type { BatchRows, ResolvedColumns } from './resolve.ts';

/** A batch within a block, with what its rows need. */
export interface NamedBatchRows extends BatchRows {
  readonly agentId: string;
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

function agentColumn(count: number, batches: readonly NamedBatchRows[]): DictionaryColumn {
  const column = new TextColumn();
  const indexes = new Uint32Array(count);
  for (const batch of batches)
    indexes.fill(column.index(batch.agentId), batch.firstRow, batch.firstRow + batch.rowCount);
  return { dictionary: column.dictionary, indexes };
}

/** Ids (pairs of words) of `indexes`; -1 gives 0. */
function gatherIds(count: number, indexes: Int32Array, words: Uint32Array): BigUint64Array {
  const out = new Uint32Array(count * 2);
  for (let row = 0; row < count; row++) {
    const index = indexes[row] ?? -1;
    if (index < 0) continue;
    out[row * 2] = words[index * 2] ?? 0;
    out[row * 2 + 1] = words[index * 2 + 1] ?? 0;
  }
  return new BigUint64Array(out.buffer);
}

function counters(count: number, words: Uint32Array): BigUint64Array {
  return new BigUint64Array(words.buffer, words.byteOffset, count);
}

function verdictColumns(
  count: number,
  packed: Int32Array,
  engine: PolicyEngine,
): { verdict: Uint8Array; reason: Uint8Array; rule: BigUint64Array } {
  const ruleWords = new Uint32Array((engine.rules.length + 1) * 2);
  engine.rules.forEach(({ ruleset, rule }, index) => {
    const id = ruleId(ruleset.name, rule.name);
    ruleWords[index * 2 + 2] = Number(id & 0xffffffffn);
    ruleWords[index * 2 + 3] = Number(id >> 32n);
  });
  const verdict = new Uint8Array(count);
  const reason = new Uint8Array(count);
  const rule = new Uint32Array(count * 2);
  for (let row = 0; row < count; row++) {
    const value = packed[row] ?? 0;
    verdict[row] = value & 3;
    reason[row] = (value >> 2) & 15;
    const at = (value >>> 6) * 2;
    rule[row * 2] = ruleWords[at] ?? 0;
    rule[row * 2 + 1] = ruleWords[at + 1] ?? 0;
  }
  return { verdict, reason, rule: new BigUint64Array(rule.buffer) };
}

const provenanceType = enum8Type(provenances);
const certaintyType = enum8Type(certainties);

/**
 * The block of table `flows` for the first `columns.count` rows. It shares memory with `columns`: leave them alone until
 * the insert is done.
 */
export function flowsBlock(
  columns: FlowColumns,
  resolved: ResolvedColumns,
  batches: readonly NamedBatchRows[],
  inventory: Inventory,
  engine: PolicyEngine,
): NativeBlock {
  const count = columns.count;
  const { source, destination } = resolved;
  const seconds = new Uint32Array(count);
  for (let row = 0; row < count; row++) seconds[row] = (columns.startMs[row] ?? 0) / 1000;
  const { verdict, reason, rule } = verdictColumns(count, resolved.verdict, engine);
  const identityWords = inventory.identities.idWords;
  const list: NativeColumn[] = [
    { name: 'time', type: 'DateTime', data: seconds },
    { name: 'duration_ms', type: 'UInt32', data: columns.durationMs.subarray(0, count) },
    { name: 'src_ip', type: 'IPv6', data: columns.source.subarray(0, count * 16) },
    { name: 'src_port', type: 'UInt16', data: columns.sourcePort.subarray(0, count) },
    { name: 'dst_ip', type: 'IPv6', data: columns.destination.subarray(0, count * 16) },
    { name: 'dst_port', type: 'UInt16', data: columns.destinationPort.subarray(0, count) },
    { name: 'protocol', type: 'UInt8', data: columns.protocol.subarray(0, count) },
    { name: 'original_dst_ip', type: 'IPv6', data: columns.originalDestination.subarray(0, count * 16) },
    { name: 'original_dst_port', type: 'UInt16', data: columns.originalDestinationPort.subarray(0, count) },
    { name: 'src_workload', type: 'UInt64', data: gatherIds(count, source.owner, inventory.ownerIdWords) },
    {
      name: 'dst_workload',
      type: 'UInt64',
      data: gatherIds(count, destination.owner, inventory.ownerIdWords),
    },
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
    { name: 'policy', type: 'UInt32', data: new Uint32Array(count).fill(engine.version) },
    { name: 'bytes_forward', type: 'UInt64', data: counters(count, columns.bytesForward) },
    { name: 'bytes_reverse', type: 'UInt64', data: counters(count, columns.bytesReverse) },
    { name: 'packets_forward', type: 'UInt64', data: counters(count, columns.packetsForward) },
    { name: 'packets_reverse', type: 'UInt64', data: counters(count, columns.packetsReverse) },
    { name: 'connections', type: 'UInt32', data: columns.connectionCount.subarray(0, count) },
    { name: 'dns_name', type: 'LowCardinality(String)', data: textColumn(columns, columns.dnsName) },
    { name: 'process', type: 'LowCardinality(String)', data: textColumn(columns, columns.processName) },
    { name: 'agent', type: 'LowCardinality(String)', data: agentColumn(count, batches) },
  ];
  return encodeNativeBlock(count, list);
}

/** Names both ends of every flow of a block and gives the verdicts, column by column. */
import type { Inventory } from '../../lib/inventory/inventory.ts';
import { provenanceCode } from '../../lib/inventory/inventory.ts';
import { certaintyCode } from '../../lib/inventory/time-index.ts';
import type { PolicyEngine } from '../../lib/policy/engine.ts';
import type { FlowColumns } from '../../lib/wire/columns.ts';
import type { AddressTraits } from './traits.ts';

/** What became known of one end of each flow. */
export interface EndColumns {
  /** Index into the identities. */
  readonly identity: Int32Array;
  /** Index into the owners, or -1. */
  readonly owner: Int32Array;
  readonly provenance: Uint8Array;
  readonly certainty: Uint8Array;
  readonly blockSet: Uint16Array;
}

export interface ResolvedColumns {
  readonly source: EndColumns;
  readonly destination: EndColumns;
  /** Packed verdicts, see `lib/policy/engine.ts`. */
  readonly verdict: Int32Array;
}

export function makeResolvedColumns(capacity: number): ResolvedColumns {
  const end = (): EndColumns => ({
    identity: new Int32Array(capacity),
    owner: new Int32Array(capacity),
    provenance: new Uint8Array(capacity),
    certainty: new Uint8Array(capacity),
    blockSet: new Uint16Array(capacity),
  });
  return { source: end(), destination: end(), verdict: new Int32Array(capacity) };
}

/** Rows of one batch within a block, and the network its addresses are in. */
export interface BatchRows {
  readonly firstRow: number;
  readonly rowCount: number;
  readonly network: number;
}

interface EndInput {
  readonly words: Uint32Array;
  readonly bytes: Uint8Array;
  readonly hints: Uint32Array;
}

/** Names one end of the rows from `from` up to `to`. Returns how many pod addresses have no owner. */
function resolveEnd(
  columns: FlowColumns,
  input: EndInput,
  out: EndColumns,
  from: number,
  to: number,
  network: number,
  inventory: Inventory,
  traits: AddressTraits,
): number {
  const index = inventory.index;
  const parent = inventory.view(network).parent;
  const { words, bytes, hints } = input;
  const startMs = columns.startMs;
  let pendingCount = 0;
  for (let row = from; row < to; row++) {
    const timeMs = startMs[row] ?? 0;
    traits.look(network, words, bytes, row);
    out.blockSet[row] = traits.blockSet;
    index.find(network, words, row * 4, timeMs);
    if (index.foundOwner < 0 && parent >= 0 && traits.closed === 0)
      index.find(parent, words, row * 4, timeMs);
    let owner = index.foundOwner;
    let certainty = index.foundCertainty;
    const hint = hints[row] ?? 0;
    if (hint !== 0 && certainty !== certaintyCode.exact) {
      // The reporter saw the workload itself: that beats any guess by address.
      const named = inventory.byUid(columns.texts.text(hint));
      if (named !== undefined) {
        owner = named.index;
        certainty = certaintyCode.exact;
      }
    }
    out.owner[row] = owner;
    out.certainty[row] = certainty;
    if (owner >= 0) {
      out.identity[row] = inventory.ownerIdentity[owner] ?? 0;
      out.provenance[row] = inventory.ownerProvenance[owner] ?? 0;
    } else if (traits.closed !== 0) {
      out.identity[row] = 0;
      out.provenance[row] = provenanceCode.none;
      pendingCount++;
    } else {
      out.identity[row] = traits.identity;
      // A range is a fact about the address, whatever the time.
      out.provenance[row] = traits.identity === 0 ? provenanceCode.none : provenanceCode.range;
      out.certainty[row] = traits.identity === 0 ? certaintyCode.none : certaintyCode.exact;
    }
  }
  return pendingCount;
}

/**
 * Fills `out` for all rows of the batches. Returns how many ends have a pod address that nobody is known to have had.
 */
export function resolveBlock(
  columns: FlowColumns,
  batches: readonly BatchRows[],
  out: ResolvedColumns,
  inventory: Inventory,
  traits: AddressTraits,
): number {
  const source: EndInput = { words: columns.sourceWords, bytes: columns.source, hints: columns.sourceHint };
  const destination: EndInput = {
    words: columns.destinationWords,
    bytes: columns.destination,
    hints: columns.destinationHint,
  };
  let pending = 0;
  for (const batch of batches) {
    const to = batch.firstRow + batch.rowCount;
    pending += resolveEnd(columns, source, out.source, batch.firstRow, to, batch.network, inventory, traits);
    pending += resolveEnd(
      columns,
      destination,
      out.destination,
      batch.firstRow,
      to,
      batch.network,
      inventory,
      traits,
    );
  }
  return pending;
}

/** Gives each row its verdict. */
export function judgeBlock(
  columns: FlowColumns,
  resolved: ResolvedColumns,
  inventory: Inventory,
  engine: PolicyEngine,
): void {
  const { source, destination, verdict } = resolved;
  const identities = inventory.identities.list;
  for (let row = 0; row < columns.count; row++) {
    verdict[row] = engine.verdict(
      identities,
      source.identity[row] ?? 0,
      source.blockSet[row] ?? 0,
      destination.identity[row] ?? 0,
      destination.blockSet[row] ?? 0,
      columns.destinationPort[row] ?? 0,
      columns.protocol[row] ?? 0,
    );
  }
}

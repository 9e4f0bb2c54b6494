/**
 * Names both ends of every flow of a block and gives the verdicts, column by column. An end is settled once the source
 * that is responsible for it vouches for the time of the flow (docs/decisions/005); until then its row is pending.
 */
import type { Inventory, NetworkView } from '../../lib/inventory/inventory.ts';
import {
  factsPerOwner,
  ownerFact,
  provenanceCode,
  provenanceOf,
  sourceOf,
} from '../../lib/inventory/inventory.ts';
import { certaintyCode, prefetchRows } from '../../lib/inventory/time-index.ts';
import type { PolicyEngine } from '../../lib/policy/engine.ts';
import type { PolicySpan, PolicyTimeline } from '../../lib/policy/timeline.ts';
import type { FlowColumns } from '../../lib/wire/columns.ts';
import { Needs } from './needs.ts';
import { TextMemo } from './text-memo.ts';
import type { AddressTraits } from './traits.ts';

/** What became known of one end of each flow. */
export interface EndColumns {
  /** Index into the identities. */
  readonly identity: Int32Array;
  /** Id of the workload, low and high word; 0 for none. Kept as it is now: indexes of owners are used again. */
  readonly workload: Uint32Array;
  readonly provenance: Uint8Array;
  readonly certainty: Uint8Array;
  readonly blockSet: Uint16Array;
  /** 1 where the end is not settled. */
  readonly pending: Uint8Array;
}

export interface ResolvedColumns {
  readonly source: EndColumns;
  readonly destination: EndColumns;
  /** Packed verdicts, see `lib/policy/engine.ts`. */
  readonly verdict: Int32Array;
  /** Which of the engines that judged the block gave it: index into what {@link judgeBlock} returns. */
  readonly judge: Uint16Array;
}

export function makeResolvedColumns(capacity: number): ResolvedColumns {
  const end = (): EndColumns => ({
    identity: new Int32Array(capacity),
    workload: new Uint32Array(capacity * 2),
    provenance: new Uint8Array(capacity),
    certainty: new Uint8Array(capacity),
    blockSet: new Uint16Array(capacity),
    pending: new Uint8Array(capacity),
  });
  return {
    source: end(),
    destination: end(),
    verdict: new Int32Array(capacity),
    judge: new Uint16Array(capacity),
  };
}

/** Rows of one batch within a block, the network its addresses are in, and how far its times may be off, ms. */
export interface BatchRows {
  readonly firstRow: number;
  readonly rowCount: number;
  readonly network: number;
  readonly toleranceMs: number;
}

interface EndInput {
  readonly words: Uint32Array;
  readonly bytes: Uint8Array;
  readonly hints: Uint32Array;
  /** Names that were asked for; null for sources, which nobody asks for. */
  readonly names: Uint32Array | null;
}

/** A source that has said nothing for so long does not hold back what several sources could know, ms. */
export const silentSourceMs = 60_000;

/** Names blocks. Make a new one for each block: it remembers the block's texts. */
export class BlockNamer {
  readonly #columns: FlowColumns;
  readonly #batches: readonly BatchRows[];
  readonly #out: ResolvedColumns;
  readonly #inventory: Inventory;
  readonly #traits: AddressTraits;
  readonly #hints: TextMemo;
  readonly #names: TextMemo;
  readonly #source: EndInput;
  readonly #destination: EndInput;
  /** How far networks that several sources share are complete, ms, looked up once a pass. */
  readonly #sharedMs = new Map<number, number>();
  /** What the rows that are pending wait for. */
  readonly needs = new Needs();

  constructor(
    columns: FlowColumns,
    batches: readonly BatchRows[],
    out: ResolvedColumns,
    inventory: Inventory,
    traits: AddressTraits,
  ) {
    this.#columns = columns;
    this.#batches = batches;
    this.#out = out;
    this.#inventory = inventory;
    this.#traits = traits;
    const text = (reference: number): string => columns.texts.text(reference);
    this.#hints = new TextMemo(
      columns.texts.count,
      (reference) => inventory.byUid(text(reference))?.index ?? -1,
    );
    this.#names = new TextMemo(columns.texts.count, (reference) => inventory.nameIdentity(text(reference)));
    this.#source = {
      words: columns.sourceWords,
      bytes: columns.source,
      hints: columns.sourceHint,
      names: null,
    };
    this.#destination = {
      words: columns.destinationWords,
      bytes: columns.destination,
      hints: columns.destinationHint,
      names: columns.dnsName,
    };
  }

  /** Names all rows. Returns how many ends are pending. */
  nameAll(): number {
    this.#sharedMs.clear();
    this.needs.clear();
    let pending = 0;
    for (const batch of this.#batches) {
      const to = batch.firstRow + batch.rowCount;
      pending += this.#name(this.#source, this.#out.source, batch, batch.firstRow, to);
      pending += this.#name(this.#destination, this.#out.destination, batch, batch.firstRow, to);
    }
    return pending;
  }

  /** Names those ends again that are pending. Returns how many still are. */
  namePending(): number {
    this.#sharedMs.clear();
    this.needs.clear();
    // Who was not known by hint or name may be by now.
    this.#hints.forget();
    this.#names.forget();
    const { source, destination } = this.#out;
    let pending = 0;
    for (const batch of this.#batches) {
      const to = batch.firstRow + batch.rowCount;
      for (let row = batch.firstRow; row < to; row++) {
        if (source.pending[row] === 1) pending += this.#name(this.#source, source, batch, row, row + 1);
        if (destination.pending[row] === 1)
          pending += this.#name(this.#destination, destination, batch, row, row + 1);
      }
    }
    return pending;
  }

  /** Names one end of the rows from `from` up to `to`, all of one batch. */
  #name(input: EndInput, out: EndColumns, batch: BatchRows, from: number, to: number): number {
    const { network, toleranceMs } = batch;
    const inventory = this.#inventory;
    const traits = this.#traits;
    const index = inventory.index;
    const view = inventory.view(network);
    const { words, bytes, hints, names } = input;
    const { startMs } = this.#columns;
    const { completeToMs, ownerFacts } = inventory;
    let pendingCount = 0;
    for (let row = from; row < to; row++) {
      if ((row - from) % prefetchRows === 0 && to - row > 1)
        inventory.prefetch(network, words, row, Math.min(prefetchRows, to - row));
      const timeMs = startMs[row] ?? 0;
      index.find(network, words, row * 4, timeMs, toleranceMs);
      if (index.foundOwner >= 0) out.blockSet[row] = traits.blockSetOf(network, words, bytes, row);
      else {
        traits.look(network, words, bytes, row);
        out.blockSet[row] = traits.blockSet;
        if (view.parent >= 0 && traits.closed === 0)
          index.find(view.parent, words, row * 4, timeMs, toleranceMs);
      }
      let owner = index.foundOwner;
      let certainty = index.foundCertainty;
      const hint = hints[row] ?? 0;
      if (hint !== 0) {
        // The reporter saw the workload itself: that beats any guess by address.
        const named = this.#hints.get(hint);
        if (named >= 0) {
          owner = named;
          certainty = certaintyCode.exact;
        } else if (certainty === certaintyCode.exact) certainty = certaintyCode.ambiguous;
      }
      if (owner < 0) {
        pendingCount += this.#nameUnowned(out, row, batch, view, names === null ? 0 : (names[row] ?? 0));
        continue;
      }
      let facts = owner * factsPerOwner;
      let origin = ownerFacts[facts + ownerFact.origin] ?? 0;
      const source = sourceOf(origin);
      const completeMs = completeToMs[source] ?? 0;
      if (provenanceOf(origin) === provenanceCode.node && names !== null) {
        const service = inventory.nodePortOwner(
          owner,
          this.#columns.destinationPort[row] ?? 0,
          this.#columns.protocol[row] ?? 0,
          timeMs,
        );
        if (service >= 0) {
          owner = service;
          facts = owner * factsPerOwner;
          origin = ownerFacts[facts + ownerFact.origin] ?? 0;
        }
      }
      let identity = ownerFacts[facts + ownerFact.identity] ?? -1;
      if (identity < 0) {
        identity = inventory.identityWithin(owner, timeMs - toleranceMs, timeMs + toleranceMs);
        if (identity < 0) {
          // Its labels changed close by: which of them it had, nobody can say for sure.
          identity = inventory.identityAt(owner, timeMs);
          certainty = certaintyCode.ambiguous;
        }
      }
      const settled = completeMs >= timeMs + toleranceMs;
      out.workload[row * 2] = ownerFacts[facts + ownerFact.idLow] ?? 0;
      out.workload[row * 2 + 1] = ownerFacts[facts + ownerFact.idHigh] ?? 0;
      out.identity[row] = identity;
      out.provenance[row] = provenanceOf(origin);
      out.certainty[row] = settled ? certainty : certaintyCode.late;
      out.pending[row] = settled ? 0 : 1;
      if (settled) continue;
      pendingCount++;
      this.needs.note(source, timeMs + toleranceMs);
    }
    return pendingCount;
  }

  #sharedCompleteToMs(network: number): number {
    let value = this.#sharedMs.get(network);
    if (value === undefined) {
      value = this.#inventory.sharedCompleteToMs(network, silentSourceMs);
      this.#sharedMs.set(network, value);
    }
    return value;
  }

  /** Names an end whose address nobody is known to have had: by the name that was asked for, by its range, or not at all. */
  #nameUnowned(out: EndColumns, row: number, batch: BatchRows, view: NetworkView, name: number): number {
    const { toleranceMs } = batch;
    const inventory = this.#inventory;
    const traits = this.#traits;
    const needMs = (this.#columns.startMs[row] ?? 0) + toleranceMs;
    out.workload[row * 2] = 0;
    out.workload[row * 2 + 1] = 0;
    out.pending[row] = 0;
    if (traits.closed !== 0) {
      // The cluster's own: only its source can say whose.
      out.identity[row] = 0;
      out.provenance[row] = provenanceCode.none;
      out.certainty[row] = certaintyCode.none;
      const source = view.closedSource;
      if (source < 0 || (inventory.completeToMs[source] ?? 0) >= needMs) return 0;
      this.needs.note(source, needMs);
      out.pending[row] = 1;
      return 1;
    }
    const named = name === 0 ? 0 : Math.max(0, this.#names.get(name));
    const identity = named > 0 ? named : traits.identity;
    out.identity[row] = identity;
    if (named > 0) out.provenance[row] = provenanceCode.name;
    else out.provenance[row] = identity === 0 ? provenanceCode.none : provenanceCode.range;
    // A range, or a name, is a fact about the address, once it is sure that no host of the estate has it.
    const network = view.parent >= 0 ? view.parent : batch.network;
    const settled = traits.inside === 0 || this.#sharedCompleteToMs(network) >= needMs;
    const known = identity === 0 ? certaintyCode.none : certaintyCode.exact;
    out.certainty[row] = settled || identity === 0 ? known : certaintyCode.late;
    if (settled) return 0;
    this.needs.noteShared(network, needMs);
    out.pending[row] = 1;
    return 1;
  }
}

/** Rows whose ends are named, as far as they can be yet. */
export interface NamedRows {
  readonly namer: BlockNamer;
  /** Whose block sets the rows have. */
  readonly span: PolicySpan;
  /** Ends that are not settled. */
  pendingCount: number;
}

/** The policy whose block sets the rows of a block get when they are named: the one of the flow in the middle. */
export function spanOfBlock(columns: FlowColumns, policies: PolicyTimeline): PolicySpan {
  return policies.at(columns.startMs[columns.count >> 1] ?? 0);
}

function processesOf(engine: PolicyEngine, { texts }: FlowColumns): TextMemo | null {
  if (!engine.hasProcesses) return null;
  return new TextMemo(texts.count, (reference) => engine.processClass(texts.text(reference)));
}

/**
 * Gives each row the verdict of the policy that was in force when its flow began. `named` is the span whose block sets the
 * rows have. Returns the engines that judged, the one of `named` first.
 */
export function judgeBlock(
  columns: FlowColumns,
  resolved: ResolvedColumns,
  inventory: Inventory,
  policies: PolicyTimeline,
  named: PolicySpan,
): readonly PolicyEngine[] {
  const { source, destination, verdict, judge } = resolved;
  const identities = inventory.identities.list;
  const engines = [named.engine];
  /** Classes of the processes that flows name, for engines whose rules ask for them. */
  const processes = [processesOf(named.engine, columns)];
  let span = named;
  let at = 0;
  for (let row = 0; row < columns.count; row++) {
    const begin = columns.startMs[row] ?? 0;
    if (begin < span.fromMs || begin >= span.untilMs) {
      span = policies.at(begin);
      at = engines.indexOf(span.engine);
      if (at < 0) {
        at = engines.push(span.engine) - 1;
        processes.push(processesOf(span.engine, columns));
      }
    }
    const { engine } = span;
    const process = columns.processName[row] ?? 0;
    let sourceBlocks = source.blockSet[row] ?? 0;
    let destinationBlocks = destination.blockSet[row] ?? 0;
    if (at !== 0) {
      // Block sets are numbers of one engine.
      sourceBlocks = engine.hasBlocks ? engine.blockSet(columns.source, row * 16) : 0;
      destinationBlocks = engine.hasBlocks ? engine.blockSet(columns.destination, row * 16) : 0;
    }
    judge[row] = at;
    verdict[row] = engine.verdict(
      identities,
      source.identity[row] ?? 0,
      sourceBlocks,
      destination.identity[row] ?? 0,
      destinationBlocks,
      columns.destinationPort[row] ?? 0,
      columns.protocol[row] ?? 0,
      process === 0 ? 0 : (processes[at]?.get(process) ?? 0),
    );
  }
  return engines;
}

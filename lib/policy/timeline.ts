/**
 * Which policy judges a flow: the one that was in force when the flow began, so that the verdict is the same whenever, and
 * however often, it is worked out. Before the first version that is known, that version.
 */
import type { PolicyDocument } from '../../schemas/policy.ts';
import { emptyPolicy, PolicyEngine } from './engine.ts';

/** A time in which the same rules were in force: `fromMs <= begin < untilMs`. */
export interface PolicySpan {
  readonly fromMs: number;
  readonly untilMs: number;
  readonly document: PolicyDocument;
  readonly engine: PolicyEngine;
}

interface Slot {
  readonly fromMs: number;
  readonly document: PolicyDocument;
  /** Null until a flow of its time comes. */
  engine: PolicyEngine | null;
}

/** Engines that are kept compiled; flows of older spans, which are few, compile anew. */
const maxCompiled = 4;

export class PolicyTimeline {
  /** Ascending. The first holds for all time before. */
  #slots: Slot[] = [
    { fromMs: Number.NEGATIVE_INFINITY, document: emptyPolicy, engine: new PolicyEngine(emptyPolicy, 0) },
  ];
  #documents: readonly PolicyDocument[] = [];
  /** Compiled slots, the newest last. */
  #recent: Slot[] = [];

  /** The newest version, whether its time has come or not. */
  get newest(): PolicyDocument {
    return this.#documents.at(-1) ?? emptyPolicy;
  }

  /** All versions, ascending. */
  get documents(): readonly PolicyDocument[] {
    return this.#documents;
  }

  /** Takes a version in. Of two documents with one version the first stays. Returns whether it is this one. */
  add(document: PolicyDocument): boolean {
    if (this.#documents.some(({ version }) => version === document.version)) return false;
    this.#documents = [...this.#documents, document].sort((a, b) => a.version - b.version);
    const known = new Map(this.#slots.map((slot) => [slot.document, slot]));
    let inForceMs = Number.NEGATIVE_INFINITY;
    this.#slots = this.#documents.map((one, i) => {
      // A clock that went back can't make a version older than the one before it.
      inForceMs = Math.max(inForceMs, one.appliedMs);
      const fromMs = i === 0 ? Number.NEGATIVE_INFINITY : inForceMs;
      const before = known.get(one);
      return {
        fromMs,
        document: one,
        engine: before?.fromMs === fromMs ? before.engine : null,
      };
    });
    this.#recent = this.#slots.filter((slot) => slot.engine !== null).slice(-maxCompiled);
    return true;
  }

  /** Since when the newest version is in force. */
  get newestFromMs(): number {
    const { newest } = this;
    return this.#slots.find(({ document }) => document === newest)?.fromMs ?? Number.NEGATIVE_INFINITY;
  }

  /** Spares compiling: `engine` is the document's as it is when it comes into force. */
  provide(document: PolicyDocument, engine: PolicyEngine): void {
    const slot = this.#slots.find((one) => one.document === document);
    if (slot !== undefined && slot.engine === null) this.#keep(slot, engine);
  }

  /** Forgets versions below `version`, which then holds for all time before. */
  forgetBelow(version: number): void {
    const kept = this.#documents.filter((document) => document.version >= version);
    if (kept.length === this.#documents.length || kept.length === 0) return;
    this.#documents = kept;
    const [first, ...others] = this.#slots.filter(({ document }) => document.version >= version);
    if (first === undefined) return;
    this.#slots = [{ ...first, fromMs: Number.NEGATIVE_INFINITY, engine: null }, ...others];
    this.#recent = others.filter(({ engine }) => engine !== null);
  }

  /** The span that a flow belongs to which began at `timeMs`. Compiles where nobody asked lately. */
  at(timeMs: number): PolicySpan {
    let low = 0;
    let high = this.#slots.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if ((this.#slots[middle]?.fromMs ?? 0) <= timeMs) low = middle;
      else high = middle - 1;
    }
    const slot = this.#slots[low];
    if (slot === undefined) throw new RangeError('a timeline has at least one span');
    const untilMs = this.#slots[low + 1]?.fromMs ?? Number.POSITIVE_INFINITY;
    const engine = slot.engine ?? new PolicyEngine(slot.document, slot.fromMs);
    if (slot.engine === null) this.#keep(slot, engine);
    // A rule that expires ends a span: from then on the same version explains less.
    if (engine.nextExpiryMs < untilMs) {
      this.#slots.splice(low + 1, 0, { fromMs: engine.nextExpiryMs, document: slot.document, engine: null });
      if (timeMs >= engine.nextExpiryMs) return this.at(timeMs);
    }
    const { fromMs, document } = slot;
    return { fromMs, untilMs: Math.min(untilMs, engine.nextExpiryMs), document, engine };
  }

  #keep(slot: Slot, engine: PolicyEngine): void {
    slot.engine = engine;
    this.#recent.push(slot);
    if (this.#recent.length <= maxCompiled) return;
    const oldest = this.#recent.shift();
    if (oldest !== undefined) oldest.engine = null;
  }
}

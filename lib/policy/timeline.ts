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
  /** While it is compiled in steps. */
  compiling: Promise<PolicyEngine> | null;
}

/** Engines that are kept compiled; flows of older spans, which are few, compile anew. */
const maxCompiled = 4;

export class PolicyTimeline {
  /** Ascending. The first holds for all time before. */
  #slots: Slot[] = [
    {
      fromMs: Number.NEGATIVE_INFINITY,
      document: emptyPolicy,
      engine: new PolicyEngine(emptyPolicy, 0),
      compiling: null,
    },
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
        compiling: before?.fromMs === fromMs ? before.compiling : null,
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
    for (;;) {
      const slot = this.#slotAt(timeMs);
      if (slot.engine === null) this.#keep(slot, new PolicyEngine(slot.document, slot.fromMs));
      const span = this.#spanOf(slot);
      if (timeMs < span.untilMs) return span;
    }
  }

  /** As {@link at}, but compiles a few ms at a time, and once for all who wait for it. */
  async reach(timeMs: number): Promise<PolicySpan> {
    for (;;) {
      const slot = this.#slotAt(timeMs);
      if (slot.engine !== null) {
        const span = this.#spanOf(slot);
        if (timeMs < span.untilMs) return span;
        continue;
      }
      slot.compiling ??= PolicyEngine.compile(slot.document, slot.fromMs);
      try {
        const engine = await slot.compiling;
        if (slot.engine === null && this.#slots.includes(slot)) this.#keep(slot, engine);
      } finally {
        slot.compiling = null;
      }
    }
  }

  #slotAt(timeMs: number): Slot {
    let low = 0;
    let high = this.#slots.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if ((this.#slots[middle]?.fromMs ?? 0) <= timeMs) low = middle;
      else high = middle - 1;
    }
    const slot = this.#slots[low];
    if (slot === undefined) throw new RangeError('a timeline has at least one span');
    return slot;
  }

  /** What a slot that is compiled stands for. */
  #spanOf(slot: Slot): PolicySpan {
    const { fromMs, document, engine } = slot;
    if (engine === null) throw new RangeError('a span has an engine');
    const next = this.#slots.indexOf(slot) + 1;
    const untilMs = this.#slots[next]?.fromMs ?? Number.POSITIVE_INFINITY;
    // A rule that expires ends a span: from then on the same version explains less.
    if (engine.nextExpiryMs < untilMs)
      this.#slots.splice(next, 0, { fromMs: engine.nextExpiryMs, document, engine: null, compiling: null });
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

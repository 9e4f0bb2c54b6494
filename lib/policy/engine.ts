/**
 * Evaluation of policy, the only one there is: rules compiled to bit sets over endpoints (see compile.ts). A verdict is the
 * first rule in the intersection of what the source and what the destination fit, memoised by pair, port, protocol, and,
 * where rules ask for it, process. `reference.ts` says the same the plain way.
 */
import type { Reason, Verdict } from '../../schemas/closed-lists.ts';
import { reasons, verdicts } from '../../schemas/closed-lists.ts';
import type { PolicyDocument } from '../../schemas/policy.ts';
import type { Cidr } from '../net/address.ts';
import {
  anyProtocol,
  anyWithPorts,
  type CompiledPolicy,
  type CompiledRule,
  compileSteps,
  isIcmp,
  type PortMatch,
} from './compile.ts';
import { bitCount, Endpoints } from './endpoints.ts';
import type { Selectable } from './match.ts';
import { finish, finishInSlices } from './steps.ts';

export { type CompiledRule, protocolNumbers } from './compile.ts';
export type { Selectable } from './match.ts';

/** Verdict, reason and rule in one number, as the memo keeps it: rule + 1 in the high bits, then reason (4 bits), verdict (2 bits). */
export function packVerdict(verdict: Verdict, reason: Reason, rule: number): number {
  return ((rule + 1) << 6) | (reasons.indexOf(reason) << 2) | verdicts.indexOf(verdict);
}
export const verdictCodeOf = (packed: number): number => packed & 3;
export const reasonCodeOf = (packed: number): number => (packed >> 2) & 15;
/** Index into `rules`, or -1. */
export const ruleOf = (packed: number): number => (packed >>> 6) - 1;

const memoWords = 4;
const maxMemoEntries = 1 << 20;
/** Process classes that the memo has room for; verdicts of further ones are worked out each time. */
const maxMemoProcess = 255;

/** How long compiling goes on before it lets others run, ms. */
const compileSliceMs = 5;

export class PolicyEngine {
  readonly version: number;
  /** In the order in which they decide. Boundaries are among them, as rules of a ruleset called `boundaries`. */
  readonly rules: readonly CompiledRule[];
  /** Ids of the rules as pairs of words, low first, by index + 1; 0 for none. */
  readonly ruleIdWords: Uint32Array;
  /** When the next rule expires, ms since the epoch: from then on a new engine is due. */
  readonly nextExpiryMs: number;
  /** Whether any rule speaks of addresses: if not, every block set is 0. */
  readonly hasBlocks: boolean;
  /** Whether any rule speaks of processes: if not, every process class is 0. */
  readonly hasProcesses: boolean;
  /** Times the memo was emptied because it was full. */
  memoResetCount = 0;
  readonly #policy: CompiledPolicy;
  readonly #endpoints: Endpoints;
  #memoKeys: Uint32Array;
  #memoValues: Int32Array;
  #memoMask: number;
  #memoCount = 0;

  /** Compiles at once; where the event loop must go on turning, use {@link PolicyEngine.compile}. */
  constructor(document: PolicyDocument, nowMs: number, compiled = finish(compileSteps(document, nowMs))) {
    this.version = compiled.version;
    this.rules = compiled.rules;
    this.ruleIdWords = compiled.ruleIdWords;
    this.nextExpiryMs = compiled.nextExpiryMs;
    this.hasBlocks = compiled.blocks.conditions.length > 1;
    this.hasProcesses = compiled.processes.patternCount > 0;
    this.#policy = compiled;
    this.#endpoints = new Endpoints(compiled);
    const capacity = 1 << 14;
    this.#memoKeys = new Uint32Array(capacity * memoWords);
    this.#memoValues = new Int32Array(capacity).fill(-1);
    this.#memoMask = capacity - 1;
  }

  /**
   * Compiles a policy as it is at `nowMs`, a few ms at a time. What is worked out for each identity on its first flow is
   * worked out in advance for `identities` (by index, as in {@link verdict}).
   */
  static async compile(
    document: PolicyDocument,
    nowMs: number,
    identities: readonly Selectable[] = [],
  ): Promise<PolicyEngine> {
    const compiled = await finishInSlices(compileSteps(document, nowMs), compileSliceMs);
    const engine = new PolicyEngine(document, nowMs, compiled);
    await finishInSlices(engine.#meet(identities), compileSliceMs);
    return engine;
  }

  *#meet(identities: readonly Selectable[]): Generator<void, void> {
    for (const [index, identity] of identities.entries()) {
      this.#endpoints.of(index, 0, identity);
      if (index % 16 === 0) yield;
    }
  }

  /** Times that what is known of endpoints was forgotten because it was too much. */
  get endpointResetCount(): number {
    return this.#endpoints.resetCount;
  }

  /** The block set (a small number, 0 for none) of the address in the 16 bytes at `offset`. */
  blockSet(address: Uint8Array, offset: number): number {
    return this.#policy.blocks.find(address, offset);
  }

  /** The block set of all addresses of a block; -1 where they may have different ones. */
  blockSetOfBlock(block: Cidr): number {
    return this.#policy.blocks.findBlock(block);
  }

  /** The class (a small number, 0 for none) of a process name. */
  processClass(name: string): number {
    return this.#policy.processes.classOf(name);
  }

  /** The verdict without the memo. The indexes of identities must be those that {@link verdict} gets. */
  evaluate(
    source: number,
    sourceBlocks: number,
    sourceIs: Selectable,
    destination: number,
    destinationBlocks: number,
    destinationIs: Selectable,
    port: number,
    protocol: number,
    processClass = 0,
  ): number {
    const sourceEnd = this.#endpoints.of(source, sourceBlocks, sourceIs);
    const destinationEnd = this.#endpoints.of(destination, destinationBlocks, destinationIs);
    const a = sourceEnd.source;
    const b = destinationEnd.destination;
    const top = this.#endpoints.topWords;
    const { laneRule } = this.#policy;
    let isPairCovered = false;
    let lastRule = -1;
    for (let group = 0; group < top; group++) {
      let words = (a[group] ?? 0) & (b[group] ?? 0);
      while (words !== 0) {
        const word = 31 - Math.clz32(words & -words);
        words &= words - 1;
        const below = (1 << word) - 1;
        let bits =
          (a[(a[top + group] ?? 0) + bitCount((a[group] ?? 0) & below)] ?? 0) &
          (b[(b[top + group] ?? 0) + bitCount((b[group] ?? 0) & below)] ?? 0);
        while (bits !== 0) {
          const bit = 31 - Math.clz32(bits & -bits);
          bits &= bits - 1;
          const index = laneRule[(group * 32 + word) * 32 + bit] ?? 0;
          // Lanes of one rule stand together.
          if (index === lastRule) continue;
          lastRule = index;
          isPairCovered = true;
          const compiled = this.rules[index];
          if (compiled !== undefined && this.#carries(compiled.ports, port, protocol, processClass))
            return packVerdict(compiled.action === 'allow' ? 'allowed' : 'denied', 'rule', index);
        }
      }
    }
    if (sourceIs.kind === 'unknown') return packVerdict('unexplained', 'unknown-source', -1);
    if (destinationIs.kind === 'unknown') return packVerdict('unexplained', 'unknown-destination', -1);
    if (isPairCovered) return packVerdict('unexplained', 'port-not-covered', -1);
    if (!sourceEnd.isInAnyScope && !destinationEnd.isInAnyScope)
      return packVerdict('unexplained', 'outside-scope', -1);
    return packVerdict('unexplained', 'no-rule', -1);
  }

  /**
   * What an end fits on one side, as numbers: rules can speak of a pair only where the source and the destination have one
   * in common. The index of the identity must be that which {@link verdict} gets.
   */
  lanesOf(side: 'source' | 'destination', identity: number, blocks: number, is: Selectable): number[] {
    const set = this.#endpoints.of(identity, blocks, is)[side];
    const top = this.#endpoints.topWords;
    const lanes: number[] = [];
    for (let group = 0; group < top; group++) {
      let words = set[group] ?? 0;
      for (let at = set[top + group] ?? 0; words !== 0; words &= words - 1, at++) {
        const word = 31 - Math.clz32(words & -words);
        for (let bits = set[at] ?? 0; bits !== 0; bits &= bits - 1)
          lanes.push((group * 32 + word) * 32 + 31 - Math.clz32(bits & -bits));
      }
    }
    return lanes;
  }

  #carries(ports: readonly PortMatch[], port: number, protocol: number, processClass: number): boolean {
    for (const match of ports) {
      const isProtocol =
        match.protocol === protocol ||
        match.protocol === anyProtocol ||
        (match.protocol === anyWithPorts && !isIcmp(protocol));
      if (
        isProtocol &&
        port >= match.fromPort &&
        port <= match.toPort &&
        (match.process === -1 || this.#policy.processes.fits(processClass, match.process))
      )
        return true;
    }
    return false;
  }

  /** Index of the memo place of a key: where it is, or where it belongs. */
  #place(source: number, destination: number, blocks: number, service: number): number {
    let hash =
      Math.imul(source, 0x9e3779b1) ^
      Math.imul(destination, 0x85ebca77) ^
      Math.imul(service, 0xc2b2ae3d) ^
      Math.imul(blocks, 0x27d4eb2f);
    hash ^= hash >>> 15;
    hash = Math.imul(hash, 0x2c1b3c6d);
    hash ^= hash >>> 14;
    const keys = this.#memoKeys;
    let place = hash & this.#memoMask;
    while (this.#memoValues[place] !== -1) {
      const at = place * memoWords;
      if (
        keys[at] === source &&
        keys[at + 1] === destination &&
        keys[at + 2] === blocks &&
        keys[at + 3] === service
      )
        return place;
      place = (place + 1) & this.#memoMask;
    }
    return place;
  }

  /**
   * The packed verdict for a pair of identities (indexes into `identities`), their block sets, destination port (for ICMP
   * type * 256 + code), IP protocol, and the class of the process that the reporter named. Read it with verdictCodeOf,
   * reasonCodeOf and ruleOf.
   */
  verdict(
    identities: readonly Selectable[],
    source: number,
    sourceBlocks: number,
    destination: number,
    destinationBlocks: number,
    port: number,
    protocol: number,
    processClass = 0,
  ): number {
    const blocks = sourceBlocks * 65536 + destinationBlocks;
    const service = processClass * 16777216 + port * 256 + protocol;
    const isKept = processClass <= maxMemoProcess;
    if (isKept) {
      const known = this.#memoValues[this.#place(source, destination, blocks, service)] ?? -1;
      if (known !== -1) return known;
    }
    const sourceIs = identities[source];
    const destinationIs = identities[destination];
    if (sourceIs === undefined || destinationIs === undefined)
      throw new RangeError('identity index out of range');
    const packed = this.evaluate(
      source,
      sourceBlocks,
      sourceIs,
      destination,
      destinationBlocks,
      destinationIs,
      port,
      protocol,
      processClass,
    );
    if (isKept) this.#remember(source, destination, blocks, service, packed);
    return packed;
  }

  #remember(source: number, destination: number, blocks: number, service: number, packed: number): void {
    if ((this.#memoCount + 1) * 2 > this.#memoMask) this.#growMemo();
    const place = this.#place(source, destination, blocks, service);
    const at = place * memoWords;
    this.#memoKeys[at] = source;
    this.#memoKeys[at + 1] = destination;
    this.#memoKeys[at + 2] = blocks;
    this.#memoKeys[at + 3] = service;
    this.#memoValues[place] = packed;
    this.#memoCount++;
  }

  #growMemo(): void {
    const keys = this.#memoKeys;
    const values = this.#memoValues;
    const full = this.#memoMask + 1 >= maxMemoEntries * 2;
    const capacity = full ? this.#memoMask + 1 : (this.#memoMask + 1) * 2;
    this.#memoKeys = new Uint32Array(capacity * memoWords);
    this.#memoValues = new Int32Array(capacity).fill(-1);
    this.#memoMask = capacity - 1;
    this.#memoCount = 0;
    if (full) {
      this.memoResetCount++;
      return;
    }
    for (let old = 0; old < values.length; old++) {
      const packed = values[old] ?? -1;
      if (packed === -1) continue;
      const at = old * memoWords;
      this.#remember(keys[at] ?? 0, keys[at + 1] ?? 0, keys[at + 2] ?? 0, keys[at + 3] ?? 0, packed);
    }
  }
}

/** The policy before any was applied: no rules, version 0. */
export const emptyPolicy: PolicyDocument = {
  v: 1,
  version: 0,
  author: '',
  appliedMs: 0,
  labels: [],
  profiles: [],
  ipLists: [],
  services: [],
  rulesets: [],
};

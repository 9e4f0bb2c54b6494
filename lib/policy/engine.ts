/**
 * Evaluation of policy, the only one there is: rules compiled to bit sets over endpoints. An endpoint is an identity plus
 * the set of address blocks (ip-lists, literal CIDRs) its address lies in; for each endpoint seen, the rules whose `from`,
 * `to` and scope it matches are worked out once, and a verdict is the intersection, memoised by pair, port and protocol.
 */
import type { Reason, Verdict } from '../../schemas/closed-lists.ts';
import { reasons, verdicts } from '../../schemas/closed-lists.ts';
import type {
  Actor,
  LabelSelector,
  PolicyDocument,
  PortSpec,
  Rule,
  RuleAction,
  Ruleset,
} from '../../schemas/policy.ts';
import { type Cidr, parseCidr } from '../net/address.ts';
import { type CidrMap, findStack, makeCidrMap, stackOfBlock } from '../net/cidr-map.ts';
import { ConditionIndex, cidrBlock, listBlock, type Selectable } from './conditions.ts';

export type { Selectable } from './conditions.ts';

export interface CompiledRule {
  readonly ruleset: Ruleset;
  readonly rule: Rule;
  readonly action: RuleAction;
  readonly ports: readonly PortMatch[];
}

interface PortMatch {
  /** IP protocol number, or -1 for any. */
  readonly protocol: number;
  readonly fromPort: number;
  readonly toPort: number;
}

export const protocolNumbers: Readonly<Record<string, number>> = {
  icmp: 1,
  tcp: 6,
  udp: 17,
  icmpv6: 58,
  sctp: 132,
  any: -1,
};

const allPorts: PortMatch = { protocol: -1, fromPort: 0, toPort: 65535 };

/** Verdict, reason and rule in one number, as the memo keeps it: rule + 1 in the high bits, then reason (4 bits), verdict (2 bits). */
export function packVerdict(verdict: Verdict, reason: Reason, rule: number): number {
  return ((rule + 1) << 6) | (reasons.indexOf(reason) << 2) | verdicts.indexOf(verdict);
}
export const verdictCodeOf = (packed: number): number => packed & 3;
export const reasonCodeOf = (packed: number): number => (packed >> 2) & 15;
/** Index into `rules`, or -1. */
export const ruleOf = (packed: number): number => (packed >>> 6) - 1;

interface Endpoint {
  /** Rules whose `from` matches. */
  readonly from: Uint32Array;
  /** Rules whose `to` matches. */
  readonly to: Uint32Array;
  /** Rules whose ruleset has the endpoint in scope. */
  readonly scope: Uint32Array;
  readonly inAnyScope: boolean;
}

const precedence: readonly RuleAction[] = ['override-deny', 'allow', 'deny'];

/** Compiles port specifications; a port without protocol is TCP, a protocol without port is all of its ports. */
export function compilePorts(specs: readonly PortSpec[]): PortMatch[] {
  return specs.map((spec) => {
    const protocol = protocolNumbers[spec.protocol ?? 'tcp'] ?? -1;
    if (spec.port === undefined) return { ...allPorts, protocol };
    if (typeof spec.port === 'number') return { protocol, fromPort: spec.port, toPort: spec.port };
    const [from = 0, to = 0] = spec.port.split('-').map(Number);
    return { protocol, fromPort: from, toPort: to };
  });
}

const scopeOf = (labels: LabelSelector): Actor => ({ labels });

const memoWords = 4;
const maxMemoEntries = 1 << 20;

export class PolicyEngine {
  readonly version: number;
  readonly rules: readonly CompiledRule[];
  /** When the next rule expires, ms since the epoch: from then on a new engine is due. */
  readonly nextExpiryMs: number;
  /** Times the memo was emptied because it was full. */
  memoResetCount = 0;
  readonly #from: ConditionIndex;
  readonly #to: ConditionIndex;
  /** Targets are indexes into `#rulesetRules`. */
  readonly #scopes: ConditionIndex;
  /** For each ruleset, the indexes of its rules. */
  readonly #rulesetRules: readonly (readonly number[])[];
  readonly #blocks: CidrMap;
  /** For each stack of blocks, the names of the lists (or literal CIDRs) that hold the address. */
  readonly #blockNames: readonly ReadonlySet<string>[];
  readonly #bitWords: number;
  readonly #endpoints = new Map<number, Endpoint>();
  #memoKeys: Uint32Array;
  #memoValues: Int32Array;
  #memoMask: number;
  #memoCount = 0;

  constructor(document: PolicyDocument, nowMs: number) {
    this.version = document.version;
    const services = new Map(document.services.map((service) => [service.name, service.ports]));
    let nextExpiryMs = Number.POSITIVE_INFINITY;
    const rules: CompiledRule[] = [];
    const rulesets = document.rulesets.filter((ruleset) => ruleset.enabled !== false);
    for (const ruleset of rulesets) {
      for (const rule of ruleset.rules) {
        if (rule.enabled === false) continue;
        if (rule.expires !== undefined) {
          const expiryMs = Date.parse(rule.expires);
          if (expiryMs <= nowMs) continue;
          nextExpiryMs = Math.min(nextExpiryMs, expiryMs);
        }
        const ports =
          rule.services === undefined
            ? [allPorts]
            : rule.services.flatMap((ref) =>
                compilePorts(typeof ref === 'string' ? (services.get(ref) ?? []) : [ref]),
              );
        rules.push({ ruleset, rule, action: rule.action ?? 'allow', ports });
      }
    }
    // In the order in which they decide: the first rule that matches gives the verdict.
    this.rules = precedence.flatMap((action) => rules.filter((rule) => rule.action === action));
    this.nextExpiryMs = nextExpiryMs;
    this.#bitWords = Math.ceil(this.rules.length / 32);
    this.#from = new ConditionIndex(
      this.rules.flatMap(({ rule }, i) => rule.from.map((actor) => [actor, i] as const)),
    );
    this.#to = new ConditionIndex(
      this.rules.flatMap(({ rule }, i) => rule.to.map((actor) => [actor, i] as const)),
    );
    this.#scopes = new ConditionIndex(
      rulesets.flatMap(({ scope }, i) =>
        (scope?.map(scopeOf) ?? [{ any: true as const }]).map((actor) => [actor, i] as const),
      ),
    );
    const numbers = new Map(rulesets.map((ruleset, i) => [ruleset, i]));
    const rulesetRules: number[][] = rulesets.map(() => []);
    for (const [i, { ruleset }] of this.rules.entries()) rulesetRules[numbers.get(ruleset) ?? 0]?.push(i);
    this.#rulesetRules = rulesetRules;

    const cidrs: Cidr[] = [];
    const entries: { readonly list: string; readonly excluded: boolean }[] = [];
    const addBlock = (list: string, text: string): void => {
      const excluded = text.startsWith('!');
      const cidr = parseCidr(excluded ? text.slice(1) : text);
      if (cidr === null) return;
      cidrs.push(cidr);
      entries.push({ list, excluded });
    };
    for (const list of document.ipLists) for (const text of list.cidrs) addBlock(listBlock(list.name), text);
    const literals = new Set<string>();
    for (const { rule } of this.rules) {
      for (const actor of [...rule.from, ...rule.to])
        if ('cidr' in actor) for (const text of [actor.cidr].flat()) literals.add(text);
    }
    for (const text of literals) addBlock(cidrBlock(text), text);
    this.#blocks = makeCidrMap(cidrs);
    // Of one list, the innermost block decides whether an address is in or left out.
    this.#blockNames = this.#blocks.stacks.map((stack) => {
      const names = new Set<string>();
      for (const entry of stack) {
        const block = entries[entry];
        if (block === undefined) continue;
        if (block.excluded) names.delete(block.list);
        else names.add(block.list);
      }
      return names;
    });
    const capacity = 1 << 14;
    this.#memoKeys = new Uint32Array(capacity * memoWords);
    this.#memoValues = new Int32Array(capacity).fill(-1);
    this.#memoMask = capacity - 1;
  }

  /** Whether any rule speaks of addresses: if not, every block set is 0. */
  get hasBlocks(): boolean {
    return this.#blocks.stacks.length > 1;
  }

  /** The block set (a small number, 0 for none) of the address in the 16 bytes at `offset`. */
  blockSet(address: Uint8Array, offset: number): number {
    return findStack(this.#blocks, address, offset);
  }

  /** The block set of all addresses of a block; -1 where they have different ones. */
  blockSetOfBlock(block: Cidr): number {
    return stackOfBlock(this.#blocks, block);
  }

  #endpoint(identity: number, blockSet: number, of: Selectable): Endpoint {
    const key = identity * 1048576 + blockSet;
    const known = this.#endpoints.get(key);
    if (known !== undefined) return known;
    const names = this.#blockNames[blockSet] ?? new Set<string>();
    const from = new Uint32Array(this.#bitWords);
    const to = new Uint32Array(this.#bitWords);
    const scope = new Uint32Array(this.#bitWords);
    const setBit = (bits: Uint32Array, rule: number): void => {
      bits[rule >>> 5] = (bits[rule >>> 5] ?? 0) | (1 << (rule & 31));
    };
    this.#from.match(of, names, (rule) => setBit(from, rule));
    this.#to.match(of, names, (rule) => setBit(to, rule));
    let inAnyScope = false;
    this.#scopes.match(of, names, (ruleset) => {
      inAnyScope = true;
      for (const rule of this.#rulesetRules[ruleset] ?? []) setBit(scope, rule);
    });
    const endpoint: Endpoint = { from, to, scope, inAnyScope };
    this.#endpoints.set(key, endpoint);
    return endpoint;
  }

  /** The verdict without the memo. */
  evaluate(
    source: number,
    sourceBlocks: number,
    sourceIs: Selectable,
    destination: number,
    destinationBlocks: number,
    destinationIs: Selectable,
    port: number,
    protocol: number,
  ): number {
    const a = this.#endpoint(source, sourceBlocks, sourceIs);
    const b = this.#endpoint(destination, destinationBlocks, destinationIs);
    let pairMatched = false;
    for (let word = 0; word < this.#bitWords; word++) {
      let bits = (a.from[word] ?? 0) & (b.to[word] ?? 0) & ((a.scope[word] ?? 0) | (b.scope[word] ?? 0));
      while (bits !== 0) {
        const bit = 31 - Math.clz32(bits & -bits);
        bits &= bits - 1;
        const index = word * 32 + bit;
        const compiled = this.rules[index];
        if (compiled === undefined) continue;
        pairMatched = true;
        for (const ports of compiled.ports) {
          if (
            (ports.protocol === -1 || ports.protocol === protocol) &&
            port >= ports.fromPort &&
            port <= ports.toPort
          ) {
            return packVerdict(compiled.action === 'allow' ? 'allowed' : 'denied', 'rule', index);
          }
        }
      }
    }
    if (sourceIs.kind === 'unknown') return packVerdict('unexplained', 'unknown-source', -1);
    if (destinationIs.kind === 'unknown') return packVerdict('unexplained', 'unknown-destination', -1);
    if (pairMatched) return packVerdict('unexplained', 'port-not-covered', -1);
    if (!a.inAnyScope && !b.inAnyScope) return packVerdict('unexplained', 'outside-scope', -1);
    return packVerdict('unexplained', 'no-rule', -1);
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
   * The packed verdict for a pair of identities (indexes into `identities`), their block sets, destination port and IP
   * protocol. Read it with verdictCodeOf, reasonCodeOf and ruleOf.
   */
  verdict(
    identities: readonly Selectable[],
    source: number,
    sourceBlocks: number,
    destination: number,
    destinationBlocks: number,
    port: number,
    protocol: number,
  ): number {
    const blocks = sourceBlocks * 65536 + destinationBlocks;
    const service = port * 256 + protocol;
    const place = this.#place(source, destination, blocks, service);
    const known = this.#memoValues[place] ?? -1;
    if (known !== -1) return known;
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
    );
    this.#remember(source, destination, blocks, service, packed);
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

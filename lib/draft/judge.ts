/** A policy asked about stored edges: the engine, with addresses as text, and what it would need to know besides. */
import type { PolicyDocument } from '../../schemas/policy.ts';
import { DnsNames } from '../inventory/dns-names.ts';
import { identityId, ruleId } from '../inventory/ids.ts';
import { parseAddress } from '../net/address.ts';
import { dnsNamesOf } from '../policy/dns-names.ts';
import { type CompiledRule, PolicyEngine, reasonCodeOf, ruleOf, verdictCodeOf } from '../policy/engine.ts';
import { type EdgeRow, type IdentityIndex, noAddress } from './edges.ts';
import { type Unseen, unseenPolicy } from './unseen.ts';

export interface Judged {
  /** Codes of the closed lists. */
  readonly verdict: number;
  readonly reason: number;
  /** Index into `rules`, or -1. */
  readonly rule: number;
}

/** Most addresses whose blocks are remembered. */
const maxKnownAddresses = 1 << 18;

export class Judge {
  readonly #document: PolicyDocument;
  readonly #nowMs: number;
  readonly #engine: PolicyEngine;
  readonly #identities: IdentityIndex;
  readonly #blockSets = new Map<string, number>();
  /** Engines of `unseenPolicy`, by what is unseen; null where no rule asks for it. */
  readonly #probes = new Map<number, PolicyEngine | null>();
  readonly #names = new DnsNames();
  readonly asksForProcess: boolean;
  readonly asksForNames: boolean;

  /** Compiles at once unless `engine` is the document's already; where the event loop must go on turning, use {@link Judge.of}. */
  constructor(
    document: PolicyDocument,
    identities: IdentityIndex,
    nowMs: number,
    engine = new PolicyEngine(document, nowMs),
  ) {
    this.#document = document;
    this.#nowMs = nowMs;
    this.#engine = engine;
    this.#identities = identities;
    this.asksForProcess = this.#engine.hasProcesses;
    const names = dnsNamesOf(document);
    this.asksForNames = names.length > 0;
    for (const name of names) {
      const content = {
        kind: 'name',
        cluster: '',
        namespace: '',
        name,
        zone: 'outside' as const,
        labels: {},
      };
      this.#names.set(name, [name], identities.add({ ...content, id: String(identityId(content)) }));
    }
  }

  /** Compiles a few ms at a time. */
  static async of(document: PolicyDocument, identities: IdentityIndex, nowMs: number): Promise<Judge> {
    return new Judge(document, identities, nowMs, await PolicyEngine.compile(document, nowMs));
  }

  get rules(): readonly CompiledRule[] {
    return this.#engine.rules;
  }

  /** `rules.id` of a rule of `rules`. */
  idOf(rule: number): string {
    const compiled = this.rules[rule];
    return compiled === undefined ? '0' : String(ruleId(compiled.ruleset.name, compiled.rule.name));
  }

  #blockSet(address: string): number {
    if (address === noAddress || !this.#engine.hasBlocks) return 0;
    return this.#blocksIn(this.#engine, address);
  }

  #blocksIn(engine: PolicyEngine, address: string): number {
    if (address === noAddress || !engine.hasBlocks) return 0;
    const known = engine === this.#engine ? this.#blockSets.get(address) : undefined;
    if (known !== undefined) return known;
    const bytes = parseAddress(address);
    const blockSet = bytes === null ? 0 : engine.blockSet(bytes, 0);
    if (engine === this.#engine) {
      if (this.#blockSets.size >= maxKnownAddresses) this.#blockSets.clear();
      this.#blockSets.set(address, blockSet);
    }
    return blockSet;
  }

  #probe(bits: number): PolicyEngine | null {
    let probe = this.#probes.get(bits);
    if (probe === undefined) {
      const made = new PolicyEngine(unseenPolicy(this.#document, unseenOf(bits)), this.#nowMs);
      probe = made.rules.length === 0 ? null : made;
      this.#probes.set(bits, probe);
    }
    return probe;
  }

  /** Whether the edge of a rollup can't be decided by what the rollup has. */
  needsFlows(row: EdgeRow): boolean {
    const destinationKind = this.#identities.of(row.destination).kind;
    const bits =
      (row.sourceIp === noAddress ? 1 : 0) |
      (row.destinationIp === noAddress ? 2 : destinationKind === 'name' ? 0 : 4);
    const probe = this.#probe(bits);
    if (probe === null) return false;
    const packed = probe.verdict(
      this.#identities.list,
      this.#identities.indexOf(row.source),
      this.#blocksIn(probe, row.sourceIp),
      this.#identities.indexOf(row.destination),
      this.#blocksIn(probe, row.destinationIp),
      row.port,
      row.protocol,
    );
    return ruleOf(packed) >= 0;
  }

  judge(row: EdgeRow): Judged {
    let destination = this.#identities.indexOf(row.destination);
    // The name that was asked for says who an address of nobody is, as it will once the policy lists that name.
    if (row.dns !== undefined && row.dns !== '' && row.destinationIp !== noAddress) {
      const named = this.#names.find(row.dns);
      if (named > 0 && this.#identities.list[destination]?.kind !== 'name') destination = named;
    }
    const packed = this.#engine.verdict(
      this.#identities.list,
      this.#identities.indexOf(row.source),
      this.#blockSet(row.sourceAddress ?? row.sourceIp),
      destination,
      this.#blockSet(row.destinationAddress ?? row.destinationIp),
      row.port,
      row.protocol,
      this.#engine.processClass(row.process ?? ''),
    );
    return { verdict: verdictCodeOf(packed), reason: reasonCodeOf(packed), rule: ruleOf(packed) };
  }
}

function unseenOf(bits: number): Unseen {
  return {
    sourceAddress: (bits & 1) !== 0,
    destinationAddress: (bits & 2) !== 0,
    destinationName: (bits & 4) !== 0,
  };
}

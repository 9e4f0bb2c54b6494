/** The verdict on each static rule, with what it rests on. */
import { addressTexts } from './addresses.ts';
import { appOf, type Catalogue, type Holder, holderOf, namedAddresses, type Who } from './holders.ts';
import { type Equivalent, equivalentOf } from './labels.ts';
import { type Breadth, breadthOf, type Narrowest, narrowestOf, type Used, usedBy } from './narrow.ts';
import type { StaticRule } from './rule.ts';
import { serviceTexts } from './services.ts';
import type { Shadow } from './shadow.ts';
import { type Hits, hitsOf, type RuleTally } from './tally.ts';

/** In the order in which the main verdict is chosen: the first that holds. */
export const firewallVerdicts = ['unused', 'reused', 'owner-gone', 'broader', 'used'] as const;
export type FirewallVerdict = (typeof firewallVerdicts)[number];

/** The verdicts in words. */
export const verdictWords: Readonly<Record<FirewallVerdict, string>> = {
  unused: 'unused',
  reused: 'address reused by another app',
  'owner-gone': 'owner gone',
  broader: 'broader than used',
  used: 'used',
};

export interface RuleAudit {
  readonly line: number;
  readonly action: StaticRule['action'];
  readonly source: readonly string[];
  readonly destination: readonly string[];
  readonly port: readonly string[];
  readonly comment: string;
  readonly columns: Readonly<Record<string, string>>;
  readonly verdict: FirewallVerdict;
  /** Every verdict that holds, the main one first. */
  readonly verdicts: readonly FirewallVerdict[];
  readonly notes: readonly string[];
  readonly hits: Hits;
  /** Unix seconds; `null` without hits. */
  readonly firstS: number | null;
  readonly lastS: number | null;
  readonly holders: readonly Holder[];
  /** Holders that were left out of the list. */
  readonly holdersOmitted: number;
  /** How many workloads have its addresses now, by application; of an end that is open, nobody. */
  readonly heldNow: {
    readonly sources: Readonly<Record<string, number>>;
    readonly destinations: Readonly<Record<string, number>>;
  };
  readonly breadth: Breadth | null;
  readonly narrowest: Narrowest | null;
  readonly equivalent: Equivalent | null;
  /** Lines of the earlier rules that take all of it; empty where it is reached. */
  readonly shadowedBy: readonly number[];
  readonly conditions: readonly string[];
}

/** Holders listed of one rule, those that changed first. */
const maxHolders = 50;

export interface AuditInput {
  readonly rule: StaticRule;
  readonly tally: RuleTally;
  readonly shadow: Shadow | null;
  /** Line of a rule by its index. */
  readonly lineOf: (index: number) => number;
  readonly catalogue: Catalogue;
  readonly heldNow: RuleAudit['heldNow'];
}

const stateOrder: Readonly<Record<Holder['state'], number>> = {
  'another-app': 0,
  shared: 1,
  gone: 2,
  same: 3,
  'not-used': 4,
  outside: 5,
};

export function holdersOf({
  rule,
  tally,
  catalogue,
}: Pick<AuditInput, 'rule' | 'tally' | 'catalogue'>): Holder[] {
  const ends = [
    ['source', namedAddresses(rule.source), tally.sources],
    ['destination', namedAddresses(rule.destination), tally.destinations],
  ] as const;
  return ends.flatMap(([end, addresses, seen]) =>
    addresses.map((address) => holderOf(end, address, seen.get(address), catalogue)),
  );
}

/** Whether all that used one end are named by the rule, were workloads, and are no more. */
function isGone(end: Holder['end'], holders: readonly Holder[], seenCount: number): boolean {
  const used = holders.filter((holder) => holder.end === end && holder.lastUsedS !== null);
  return used.length > 0 && used.length === seenCount && used.every(({ state }) => state === 'gone');
}

function verdictsOf(
  input: AuditInput,
  holders: readonly Holder[],
  breadth: Breadth | null,
): FirewallVerdict[] {
  const { rule, tally } = input;
  if (tally.flows === 0) return ['unused'];
  const out: FirewallVerdict[] = [];
  if (rule.action === 'allow') {
    if (holders.some(({ state }) => state === 'another-app' || state === 'shared')) out.push('reused');
    const gone =
      isGone('source', holders, tally.sources.size) ||
      isGone('destination', holders, tally.destinations.size);
    if (gone) out.push('owner-gone');
    if (breadth?.isBroader === true) out.push('broader');
  }
  return out.length === 0 ? ['used'] : out;
}

function whoText(who: Who): string {
  const app = appOf(who).replace(/^app /, '');
  return who.name === '' || who.name === app ? app : `${app} (${who.kind} ${who.name})`;
}

function isoS(seconds: number): string {
  return new Date(seconds * 1000).toISOString().replace('.000Z', 'Z');
}

function holderNote({ end, address, state, before, beforeUntilMs, now, lastUsedS }: Holder): string | null {
  const [first] = now;
  const until = beforeUntilMs === null ? '' : ` until ${isoS(Math.floor(beforeUntilMs / 1000))}`;
  if (state === 'another-app' && before !== null && first !== undefined)
    return `${end} ${address} was ${whoText(before)}${until}, now it is ${whoText(first)}`;
  if (state === 'shared' && before !== null)
    return `${end} ${address} belonged to another app before ${whoText(before)}, and both used the rule`;
  if (state === 'gone' && before !== null)
    return `${end} ${address} was ${whoText(before)}${until}, now it is nobody's`;
  if (state === 'not-used' && lastUsedS === null && first === undefined && before !== null)
    return `${end} ${address} is nobody's; ${whoText(before)} had it${until}`;
  return null;
}

function notesOf(input: AuditInput, holders: readonly Holder[], hits: Hits): string[] {
  const { rule, tally, shadow, lineOf } = input;
  const notes: string[] = [];
  if (shadow !== null) {
    const lines = shadow.by.map(lineOf);
    const which = lines.length === 1 ? `line ${lines[0]}` : `lines ${lines.join(', ')}`;
    notes.push(
      `never reached: ${which} ${shadow.isRedundant ? `${lines.length === 1 ? 'does' : 'do'} the same for all of it` : 'decides otherwise before it'}`,
    );
  }
  if (rule.conditions.length > 0)
    notes.push(
      `flows do not tell ${rule.conditions.join(', ')}: hits are an upper bound, and later rules count them too`,
    );
  if (tally.undecidedFlows > 0)
    notes.push(
      `${tally.undecidedFlows} older flows may have passed by it, the last at ${isoS(tally.undecidedLastS)}: single flows of that time are no longer kept`,
    );
  if (rule.action === 'deny' && hits.bytesReverse > 0)
    notes.push('what it denies got answers: this traffic does not pass by this firewall');
  const told = holders.flatMap((holder) => holderNote(holder) ?? []);
  notes.push(...told.slice(0, 3));
  if (told.length > 3) notes.push(`and ${told.length - 3} more addresses like these`);
  return notes;
}

/** Judges one rule. */
export function auditRule(input: AuditInput): RuleAudit {
  const { rule, tally, shadow, lineOf, catalogue, heldNow } = input;
  const hits = hitsOf(tally);
  const isUsed = tally.flows > 0;
  const isDetailed = isUsed && rule.action === 'allow';
  const used: Used | null = isDetailed ? usedBy(tally) : null;
  const holders = rule.action === 'allow' ? holdersOf(input) : [];
  const breadth = used === null ? null : breadthOf(rule, used);
  const verdicts = verdictsOf(input, holders, breadth);
  const notes = notesOf(input, holders, hits);
  const narrowest = used === null ? null : narrowestOf(used);
  if (used !== null && narrowest === null) notes.push('what used it is too much to be listed');
  const listed = holders.toSorted((a, b) => stateOrder[a.state] - stateOrder[b.state]).slice(0, maxHolders);
  return {
    line: rule.line,
    action: rule.action,
    source: addressTexts(rule.source),
    destination: addressTexts(rule.destination),
    port: serviceTexts(rule.services),
    comment: rule.comment,
    columns: rule.columns,
    verdict: verdicts[0] ?? 'used',
    verdicts,
    notes,
    hits,
    firstS: isUsed ? tally.firstS : null,
    lastS: isUsed ? tally.lastS : null,
    holders: listed,
    holdersOmitted: holders.length - listed.length,
    heldNow,
    breadth,
    narrowest,
    equivalent: used === null ? null : equivalentOf(rule, tally, used, catalogue.identities),
    shadowedBy: shadow === null ? [] : shadow.by.map(lineOf),
    conditions: rule.conditions,
  };
}

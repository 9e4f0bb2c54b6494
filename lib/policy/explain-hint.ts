/** What would have to be so that a connection is explained: the smallest change of a rule that comes near, or a new rule. */
import { stringify } from 'yaml';
import type { Reason, Verdict } from '../../schemas/closed-lists.ts';
import type { Actor, PolicyDocument, PortSpec } from '../../schemas/policy.ts';
import type { ExplainedEnd, Gap, NearRule, RulePath } from './explain.ts';
import { type JudgedPort, portText, protocolNames } from './explain-fit.ts';
import { labelGroupsOf, type Selectable, selects } from './match.ts';

export interface Hint {
  readonly text: string;
  /** A rule that would explain it, as YAML for a policy folder; null where a rule can't. */
  readonly yaml: string | null;
}

export interface HintQuestion {
  readonly document: PolicyDocument;
  readonly verdict: Verdict;
  readonly reason: Reason;
  readonly rule: RulePath | null;
  readonly near: readonly NearRule[];
  readonly source: ExplainedEnd;
  readonly destination: ExplainedEnd;
  readonly asked: JudgedPort;
}

/** A rule that lacks no more than this is changed rather than joined by another. */
const nearEnough = 1.5;

const nameKeys = ['app', 'role', 'env'] as const;

function actorOf({ identity, address }: ExplainedEnd): Actor {
  if (identity.kind === 'name') return { dns: identity.name };
  if (identity.kind === 'unknown') return address === null ? { any: true } : { cidr: address };
  const labels = Object.fromEntries(
    nameKeys.flatMap((key) => {
      const value = identity.labels[key];
      return value === undefined || value === '' ? [] : [[key, value]];
    }),
  );
  if (Object.keys(labels).length > 0) return { labels };
  const place = {
    kind: identity.kind,
    cluster: identity.cluster,
    namespace: identity.namespace,
    name: identity.name,
  };
  return { labels: Object.fromEntries(Object.entries(place).filter(([, value]) => value !== '')) };
}

function shortName({ identity, address }: ExplainedEnd): string {
  const { app, role } = identity.labels;
  const text = [app, role].filter((part) => part !== undefined && part !== '').join('-');
  if (text !== '') return text;
  return identity.name !== '' ? identity.name : (address ?? (identity.namespace || identity.kind));
}

const asName = (text: string): string =>
  text.replaceAll(/[^A-Za-z0-9._-]+/g, '-').replace(/^[^A-Za-z0-9]+/, '');

function specOf({ port, protocol }: JudgedPort): PortSpec | null {
  const known = protocolNames[protocol];
  switch (known) {
    case 'tcp':
      return { port };
    case 'udp':
    case 'sctp':
      return { port, protocol: known };
    case 'icmp':
    case 'icmpv6':
      return { protocol: known, icmpType: port >> 8, icmpCode: port & 255 };
    default:
      return null;
  }
}

/** The ruleset a new rule belongs into: one that speaks of the destination, or of the source. */
function rulesetFor(document: PolicyDocument, ends: readonly Selectable[]): string | null {
  const groups = labelGroupsOf(document.labelGroups);
  for (const end of ends) {
    const found = document.rulesets.find(
      ({ scope, enabled }) => enabled !== false && scope?.some((selector) => selects(selector, end, groups)),
    );
    if (found !== undefined) return found.name;
  }
  return (
    document.rulesets.find(({ scope, enabled }) => enabled !== false && scope === undefined)?.name ?? null
  );
}

function newRule({ document, source, destination, asked }: HintQuestion): {
  yaml: string;
  ruleset: string;
  isNew: boolean;
} {
  const known = rulesetFor(document, [destination.identity, source.identity]);
  const ruleset = known ?? (asName(shortName(destination)) || 'new');
  const spec = specOf(asked);
  const ports = asked.protocol === 6 || asked.protocol === 17 ? `-${asked.port}` : '';
  const rule = {
    name: asName(`${shortName(source)}-to-${shortName(destination)}${ports}`),
    from: [actorOf(source)],
    to: [actorOf(destination)],
    // A protocol that rules have no word for is explained by all of them only.
    services: [spec ?? { protocol: 'any' }],
  };
  const yaml = stringify({ rulesets: [{ name: ruleset, rules: [rule] }] }, { flowCollectionPadding: true });
  return { yaml, ruleset, isNew: known === null };
}

function changeOf({ kind, text }: Gap, asked: JudgedPort): string {
  switch (kind) {
    case 'disabled':
      return 'enable it';
    case 'expired':
      return 'give it a later `expires`';
    case 'port':
      return `add ${portText(asked)} to its \`services\``;
    case 'source':
      return `widen its \`from\` (${text})`;
    case 'destination':
      return `widen its \`to\` (${text})`;
    case 'scope':
      return `move it to a ruleset that speaks of both (${text})`;
    case 'direction':
      return 'add a rule for this direction';
  }
}

function changeText({ ruleset, rule, gaps, owner }: NearRule, asked: JudgedPort): string {
  const of = owner === '' ? '' : ` (owner: ${owner})`;
  return `${ruleset}/${rule}${of} comes nearest: ${gaps.map((gap) => changeOf(gap, asked)).join(', ')}`;
}

function strangerText(who: string, { address }: ExplainedEnd): string {
  return `nobody is known to have had ${address ?? `the address of the ${who}`}: tell the inventory who it is, or name it in an ip-list`;
}

/** Null where nothing is to be done: a rule allows it. */
export function hintOf(question: HintQuestion): Hint | null {
  const { verdict, reason, rule, near, source, destination, asked } = question;
  if (verdict === 'allowed') return null;
  if (verdict === 'denied') {
    const by = rule === null ? 'a rule' : `${rule.ruleset}/${rule.rule}`;
    return rule?.action === 'override-deny'
      ? { text: `${by} denies it, and no rule beats override-deny: it has to be changed itself`, yaml: null }
      : { text: `${by} denies it; a rule that allows it beats that`, yaml: newRule(question).yaml };
  }
  const { yaml, ruleset, isNew } = newRule(question);
  const [nearest] = near;
  const isClose = nearest !== undefined && nearest.action === 'allow' && nearest.distance <= nearEnough;
  const place = isNew ? `a new ruleset such as ${ruleset}` : `ruleset ${ruleset}`;
  const add = `a rule in ${place} would need this from, to and port`;
  if (reason === 'unknown-source') return { text: strangerText('source', source), yaml };
  if (reason === 'unknown-destination') return { text: strangerText('destination', destination), yaml };
  return { text: isClose ? `${changeText(nearest, asked)}; or ${add}` : add, yaml };
}

/** Suggestions as a file for a pull request: each rule with what it is made from, and what is left for a person. */
import { Document, isMap, isSeq, type YAMLMap } from 'yaml';
import type { PolicyDocument } from '../../schemas/policy.ts';
import type { KnownIdentity } from '../draft/edges.ts';
import { type LoadResult, readPolicy } from '../policy/load.ts';
import { subjectOf, type UnexplainedEdge } from './edges.ts';
import type { ReviewItem, SuggestedRule, Suggestions } from './suggest.ts';
import { reviewReasons } from './suspicion.ts';

/** Items under review that the file tells of; the answer has all of them. */
const maxReviewTold = 40;

/** Gains that the file begins with; shares from 0 to 1. */
export interface Gain {
  readonly since: string;
  readonly before: number | null;
  readonly after: number | null;
}

const count = (value: number): string => String(Math.round(value)).replace(/\B(?=(\d{3})+$)/g, ',');
const percent = (share: number | null): string =>
  share === null ? '-' : `${(Math.floor(share * 1000) / 10).toFixed(1)} %`;
const time = (seconds: number): string =>
  new Date(seconds * 1000).toISOString().slice(0, 16).replace('T', ' ');
/** A text from outside, on one line. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they would end the comment
const plain = (text: string): string => text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g, ' ');

export function whoText(of: KnownIdentity, address: string | null): string {
  const labels = ['app', 'role', 'env']
    .flatMap((key) => of.labels[key] ?? [])
    .filter((value) => value !== '');
  const name =
    labels.length > 0 ? labels.join('/') : of.name !== '' ? of.name : `${of.kind} ${of.namespace}`.trim();
  return plain(address === null ? name : `${name} ${address}`);
}

const protocols: Readonly<Record<number, string>> = {
  1: 'icmp',
  6: 'tcp',
  17: 'udp',
  58: 'icmpv6',
  132: 'sctp',
};

function ruleComment({ evidence, confidence, opens }: SuggestedRule): string {
  const { connections, sourceWorkloads, destinationWorkloads, firstS, lastS } = evidence;
  const unseen = opens.allowedPairs - opens.seenPairs;
  const example = opens.examples[0];
  const lines = [
    `${count(connections)} connections, ${count(sourceWorkloads)} -> ${count(destinationWorkloads)} workloads or addresses, ${time(firstS)} to ${time(lastS)} UTC`,
    `confidence ${confidence.level} (${confidence.score.toFixed(2)}): ${count(opens.seenPairs)} of ${count(opens.allowedPairs)} pairs that it allows were seen`,
  ];
  if (unseen > 0 && example !== undefined)
    lines.push(
      `also opens ${count(unseen)} pairs never seen, such as ${whoText(example.source, null)} -> ${whoText(example.destination, null)}`,
    );
  return lines.map((line) => ` ${line}`).join('\n');
}

function toText({ destination, destinationAddress, dns }: UnexplainedEdge): string {
  const shown = subjectOf(destination)?.type === 'labels' ? null : destinationAddress;
  return `${whoText(destination, shown)}${dns[0] === undefined ? '' : ` (${plain(dns[0])})`}`;
}

function reviewLines({ reasons, edges, evidence }: ReviewItem): string[] {
  const [edge] = edges;
  if (edge === undefined) return [];
  const from = whoText(edge.source, edge.source.kind === 'unknown' ? edge.sourceAddress : null);
  const port = `${edge.port}/${protocols[edge.protocol] ?? edge.protocol}`;
  return [
    ` - ${from} -> ${toText(edge)} ${port}: ${count(evidence.connections)} connections`,
    ...reasons.map((reason) => `     ${reason}: ${reviewReasons[reason]}`),
  ];
}

function headText({ rules, review }: Suggestions, { since, before, after }: Gain): string {
  const lines = [
    ` ${count(rules.length)} rules suggested for what no rule explained since ${since}.`,
    ` Coverage of connections: ${percent(before)} before, ${percent(after)} with them.`,
    ' Read each rule before you merge it: it was seen, which does not mean that it was meant.',
  ];
  if (review.length > 0) {
    lines.push('', ` Under review, and not among the rules: ${count(review.length)}`);
    lines.push(...review.slice(0, maxReviewTold).flatMap(reviewLines));
    if (review.length > maxReviewTold) lines.push(` and ${count(review.length - maxReviewTold)} more`);
  }
  return lines.join('\n');
}

function isNamedMap(node: unknown, name: string): node is YAMLMap {
  return isMap(node) && node.get('name') === name;
}

/** One file of a policy folder. */
export function suggestionsYaml(suggestions: Suggestions, gain: Gain): string {
  const { rules, rulesets, ipLists } = suggestions;
  const content = {
    ...(ipLists.length === 0 ? {} : { ipLists }),
    ...(rulesets.length === 0 ? {} : { rulesets }),
  };
  const document = new Document(content);
  document.commentBefore = headText(suggestions, gain);
  for (const suggested of rules) {
    const sets = document.get('rulesets');
    const ruleset = isSeq(sets) ? sets.items.find((item) => isNamedMap(item, suggested.ruleset)) : undefined;
    const list = isMap(ruleset) ? ruleset.get('rules') : undefined;
    const rule = isSeq(list) ? list.items.find((item) => isNamedMap(item, suggested.rule.name)) : undefined;
    if (!isMap(rule)) continue;
    rule.commentBefore = ruleComment(suggested);
    for (const key of ['from', 'to', 'services']) {
      const ends = rule.get(key);
      if (isSeq(ends)) ends.flow = true;
    }
  }
  const sets = document.get('rulesets');
  for (const ruleset of isSeq(sets) ? sets.items : []) {
    const scope = isMap(ruleset) ? ruleset.get('scope') : undefined;
    if (isSeq(scope)) scope.flow = true;
  }
  return rules.length === 0
    ? `${document.commentBefore
        .split('\n')
        .map((line) => `#${line}`)
        .join('\n')}\n`
    : document.toString({ lineWidth: 120 });
}

/** Reads the file together with the policy that it is meant for, as `rules check` does. */
export function checkSuggestions(yaml: string, policy: PolicyDocument): LoadResult {
  const { v: _, version: __, author: ___, appliedMs: ____, ...content } = policy;
  return readPolicy(
    new Map([
      ['policy in force', new Document(content).toString()],
      ['suggested.yaml', yaml],
    ]),
  );
}

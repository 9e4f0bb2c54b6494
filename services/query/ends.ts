/** Who is meant by one end of a question: a workload, labels, an address or a DNS name, as it was at a moment. */
import Type, { type Static } from 'typebox';
import { canonicalName, DnsNames } from '../../lib/inventory/dns-names.ts';
import { formatAddress, parseAddress } from '../../lib/net/address.ts';
import { dnsNamesOf } from '../../lib/policy/dns-names.ts';
import type { ExplainedEnd } from '../../lib/policy/explain.ts';
import type { PolicyDocument } from '../../schemas/policy.ts';
import { addressText, isoMsOrNull, setLabels } from './answers.ts';
import type { RouteContext } from './context.ts';
import type { LabelTerm } from './filters.ts';
import { toLabels } from './parameters.ts';
import { badParameter } from './problem.ts';
import {
  hasValueSql,
  identitiesByLabelsSql,
  nearNamesSql,
  nearValuesSql,
  seenUnderNameSql,
  workloadsByWordSql,
} from './sql/ends.ts';
import { rangesOfSql, whoSql } from './sql/who.ts';
import { ownersOf, type RangeRow, type WhoRow, type WorkloadRow } from './who.ts';

const nullable = (description: string) => Type.Union([Type.String(), Type.Null()], { description });

export const Candidate = Type.Object({
  kind: Type.String({ description: 'pod, node, vm, host, service, range, name or unknown.' }),
  cluster: Type.String(),
  namespace: Type.String(),
  name: Type.String({
    description: 'Of a range, service or listed DNS name; empty for what shares an identity.',
  }),
  labels: Type.Record(Type.String(), Type.String(), { description: 'Those of that time.' }),
  workload: nullable('Name of the workload, or of one of those that share the identity.'),
  address: nullable('Its address, or one of those that rules see alike.'),
  network: nullable('Network of the address.'),
  from: nullable('Since when it was that.'),
  to: nullable('Until when; null while it lasts.'),
  there: Type.Boolean({ description: 'Whether it was there at that time.' }),
});
export type Candidate = Static<typeof Candidate>;

export const AskedEnd = Type.Object({
  asked: Type.String(),
  meant: Type.Enum(['workload', 'labels', 'address', 'name'], { description: 'How the word was read.' }),
  candidates: Type.Array(Candidate, { description: 'Who may be meant, the likeliest first.' }),
  total: Type.Integer({ description: 'How many there are; the answer looks at the first of them.' }),
  notes: Type.Array(Type.String(), { description: 'What is not certain of it.' }),
});
export type AskedEnd = Static<typeof AskedEnd>;

/** Candidates of one end at most: each pair is judged. */
const maxCandidates = 20;
/** How far around the moment flows to a DNS name are looked for, seconds. */
const dnsLookbackS = 7 * 86_400;

export interface Moment {
  readonly atMs: number;
  readonly document: PolicyDocument;
}

/** Columns of an identity, as `endColumns` names them. */
interface IdentityColumns {
  readonly src_kind: string;
  readonly src_cluster: string;
  readonly src_namespace: string;
  readonly src_name: string;
  readonly src_labels: Readonly<Record<string, string>>;
}

type Bare = Pick<Candidate, 'kind' | 'cluster' | 'namespace' | 'name' | 'labels'>;

function bareOf(row: IdentityColumns): Bare {
  return {
    kind: row.src_kind === '' ? 'unknown' : row.src_kind,
    cluster: row.src_cluster,
    namespace: row.src_namespace,
    name: row.src_name,
    labels: setLabels(row.src_labels),
  };
}

const bareUnknown: Bare = { kind: 'unknown', cluster: '', namespace: '', name: '', labels: {} };
const noSight = { workload: null, address: null, network: null, from: null, to: null, there: true } as const;

/** What policy sees of a candidate. */
export function explainedEnd({ kind, cluster, namespace, name, labels, address }: Candidate): ExplainedEnd {
  return { identity: { kind, cluster, namespace, name, labels }, address };
}

function limited(
  asked: string,
  meant: AskedEnd['meant'],
  all: readonly Candidate[],
  notes: string[],
): AskedEnd {
  // Several intervals of one workload, or many workloads that share all that rules see, are one.
  const seen = new Map<string, Candidate>();
  for (const one of all) {
    const key = JSON.stringify([explainedEnd(one), one.workload]);
    if (!seen.has(key)) seen.set(key, one);
  }
  const candidates = [...seen.values()];
  const more =
    candidates.length > maxCandidates
      ? [`${candidates.length} are meant; the first ${maxCandidates} are looked at`]
      : [];
  return {
    asked,
    meant,
    candidates: candidates.slice(0, maxCandidates),
    total: candidates.length,
    notes: [...notes, ...more],
  };
}

type Row = WorkloadRow & IdentityColumns;

function workloadCandidate(row: Row, there: boolean): Candidate {
  return {
    ...bareOf(row),
    workload: row.name,
    address: addressText(row.address),
    network: row.network === '' ? null : row.network,
    from: isoMsOrNull(row.from_ms),
    to: row.is_current === 1 ? null : isoMsOrNull(row.to_ms),
    there,
  };
}

const isoOf = (atMs: number): string => new Date(atMs).toISOString();

/** Resolves ends of questions by what the store keeps of the inventory. */
export class Ends {
  readonly #context: RouteContext;
  readonly #signal: AbortSignal;

  constructor(context: RouteContext, signal: AbortSignal) {
    this.#context = context;
    this.#signal = signal;
  }

  /** @throws {ProblemError} `bad-parameter` where nobody is meant, with names that are near */
  async resolve(parameter: 'source' | 'destination', word: string, moment: Moment): Promise<AskedEnd> {
    const asked = word.trim();
    const bytes = parseAddress(asked);
    if (bytes !== null) return this.#address(formatAddress(bytes), moment);
    if (asked.includes('=')) return this.#labels(parameter, asked, moment);
    const workload = await this.#workload(asked, moment);
    if (workload !== null) return workload;
    const isName = /^(\*\.)?([a-z0-9_-]+\.)+[a-z0-9-]*[a-z][a-z0-9-]*\.?$/i.test(asked);
    const named = isName ? await this.#dnsName(canonicalName(asked), moment) : null;
    if (named !== null) return named;
    return this.#nobody(parameter, asked, isName);
  }

  async #address(address: string, { atMs }: Moment): Promise<AskedEnd> {
    const { toleranceMs } = this.#context.config;
    const stored = address.includes(':') ? address : `::ffff:${address}`;
    const rows = await this.#context.ask<WhoRow & IdentityColumns>(
      whoSql({ address: stored, atMs, toleranceMs, network: null }),
      this.#signal,
    );
    const networks = ownersOf(rows, atMs);
    const notes = networks.flatMap(({ network, certainty, owners }) => {
      if (certainty === 'ambiguous')
        return [
          `in network ${network} it belonged to one of ${owners.length}: clocks are trusted to ${toleranceMs} ms`,
        ];
      return certainty === 'grace' ? [`in network ${network} only within the tolerance of clocks`] : [];
    });
    const owned = networks.flatMap(({ network, owners }) =>
      owners.flatMap(({ id, identity }) => {
        const row = rows.find(
          (one) =>
            one.part === 'near' &&
            one.network === network &&
            one.workload_id === id &&
            one.identity_id === identity,
        );
        return row === undefined ? [] : [workloadCandidate(row, row.holds === 1)];
      }),
    );
    if (owned.length > 1 && networks.filter(({ owners }) => owners.length > 0).length > 1)
      notes.push('several networks have this address');
    if (owned.length > 0) return limited(address, 'address', owned, notes);
    const ranges = await this.#context.ask<RangeRow & IdentityColumns>(
      rangesOfSql(stored, null),
      this.#signal,
    );
    const before = networks.find((network) => network.before !== null)?.before ?? null;
    if (before !== null)
      notes.push(`nobody had it at ${isoOf(atMs)}; until ${before.to} it was that of ${before.name}`);
    if (ranges.length > 0) {
      const held = ranges.map((row) => ({ ...noSight, ...bareOf(row), address, network: row.network }));
      return limited(address, 'address', held, [...notes, 'ranges are as they are now']);
    }
    if (before === null) notes.push('nobody is known to have had this address, and no named range holds it');
    return limited(address, 'address', [{ ...noSight, ...bareUnknown, address }], notes);
  }

  async #workload(word: string, { atMs }: Moment): Promise<AskedEnd | null> {
    const rows = await this.#context.ask<Row & { readonly holds: number }>(
      workloadsByWordSql(word, atMs),
      this.#signal,
    );
    const [first] = rows;
    if (first === undefined) return null;
    const there = rows.filter(({ holds }) => holds === 1);
    if (there.length > 0)
      return limited(
        word,
        'workload',
        there.map((row) => workloadCandidate(row, true)),
        [],
      );
    // The nearest in time, and what it had then.
    const nearest = rows.filter(
      (row) =>
        row.workload_id === first.workload_id && row.from_ms === first.from_ms && row.to_ms === first.to_ms,
    );
    const candidates = nearest.map((row) => workloadCandidate(row, false));
    const { from, to } = workloadCandidate(first, false);
    const when = Number(first.from_ms) > atMs ? `it came at ${from}` : `it was there until ${to}`;
    return limited(word, 'workload', candidates, [
      `it was not there at ${isoOf(atMs)} (${when}): judged as it was nearest to that`,
    ]);
  }

  async #labels(parameter: 'source' | 'destination', text: string, moment: Moment): Promise<AskedEnd> {
    const terms = toLabels(parameter, text);
    for (const { key, values } of terms) {
      if (key === 'identity' && !values.every((value) => /^\d{1,20}$/.test(value)))
        throw badParameter(parameter, text, 'an id of an identity as a number, such as identity=1234567');
    }
    const rows = await this.#context.ask<
      IdentityColumns & {
        readonly workload_count: string;
        readonly addresses: readonly string[];
        readonly sample: string;
      }
    >(identitiesByLabelsSql(terms, moment.atMs), this.#signal);
    const known = rows.flatMap((row): Candidate[] => {
      const there = Number(row.workload_count) > 0;
      const bare = {
        ...noSight,
        ...bareOf(row),
        there: there || row.src_kind === 'range' || row.src_kind === 'name',
      };
      const workload = row.sample === '' ? null : row.sample;
      const addresses = row.addresses.map(addressText).filter((address) => address !== null);
      if (addresses.length === 0) return [{ ...bare, workload }];
      return addresses.map((address) => ({ ...bare, workload, address }));
    });
    if (known.length > 0) {
      const there = known.filter((one) => one.there);
      return there.length > 0
        ? limited(text, 'labels', there, [])
        : limited(text, 'labels', known, [
            `nobody had these labels at ${isoOf(moment.atMs)}, but at other times`,
          ]);
    }
    return this.#supposed(text, terms);
  }

  /** Labels that nobody has: judged as if a pod had exactly these, so that rules can be asked before there is one. */
  async #supposed(text: string, terms: readonly LabelTerm[]): Promise<AskedEnd> {
    const given = Object.fromEntries(
      terms.flatMap(({ key, negated, values }) =>
        negated || key === 'identity' ? [] : [[key, values[0] ?? '']],
      ),
    );
    const { kind = 'pod', cluster = '', namespace = '', name = '', ...labels } = given;
    const notes = ['nobody has these labels: judged as a workload that has exactly these'];
    for (const { key, negated, values } of terms) {
      if (negated || key === 'identity') continue;
      const [found] = await this.#context.ask<{ found: string }>(hasValueSql(key, values), this.#signal);
      if (Number(found?.found ?? 0) > 0) continue;
      const near = await this.#context.ask<{ near: string }>(
        nearValuesSql(key, values[0] ?? ''),
        this.#signal,
      );
      const hint =
        near.length === 0 ? '' : `; there is ${near.map((row) => `${key}=${row.near}`).join(', ')}`;
      notes.push(`nothing has ${key}=${values.join('|')}${hint}`);
    }
    return limited(
      text,
      'labels',
      [{ ...noSight, kind, cluster, namespace, name, labels, there: false }],
      notes,
    );
  }

  async #dnsName(name: string, { atMs, document }: Moment): Promise<AskedEnd | null> {
    const listed = dnsNamesOf(document);
    const names = new DnsNames();
    for (const [index, one] of listed.entries()) names.set(one, [one], index + 1);
    // A pattern may be asked about as it is listed.
    const found = listed.indexOf(name) + 1 || names.find(name);
    const byPolicy = listed[found - 1];
    const atS = Math.floor(atMs / 1000);
    const rows = await this.#context.ask<
      IdentityColumns & { readonly address: string; readonly last_s: number }
    >(seenUnderNameSql(name, Math.max(0, atS - dnsLookbackS), atS + 86_400), this.#signal);
    const seen = rows.map(
      (row): Candidate => ({ ...noSight, ...bareOf(row), address: addressText(row.address) }),
    );
    if (byPolicy !== undefined) {
      const address = seen.find((one) => one.kind === 'name')?.address ?? seen[0]?.address ?? null;
      const candidate = { ...noSight, ...bareUnknown, kind: 'name', name: byPolicy, address };
      // Where a workload of the estate answers to the name, flows are named by it.
      const owned = seen.filter(({ kind }) => kind !== 'name' && kind !== 'unknown' && kind !== 'range');
      return limited(name, 'name', [candidate, ...owned], [`the policy lists ${byPolicy}`]);
    }
    if (seen.length === 0) return null;
    return limited(name, 'name', seen, [
      'no rule lists this name: judged by the addresses that flows to it had',
    ]);
  }

  async #nobody(parameter: 'source' | 'destination', word: string, isName: boolean): Promise<never> {
    const near = await this.#context.ask<{ full_name: string }>(nearNamesSql(word), this.#signal);
    const looked = isName
      ? 'no workload has this name or uid, no rule lists it, and no flow of that week asked for it'
      : 'no workload ever had this name or uid';
    const hint = near.length === 0 ? '' : `; near it: ${near.map((row) => row.full_name).join(', ')}`;
    throw badParameter(
      parameter,
      word,
      'a workload (name, namespace/name, cluster/namespace/name or uid), labels (app=payments,role=api), an address or a DNS name',
      `: ${looked}${hint}`,
    );
  }
}

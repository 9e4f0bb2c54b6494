/** Gives owners their identities: labels by profiles, for each period in which what they depend on stayed the same. */
import type { FormerLabels } from './events.ts';
import type { IdentityTable } from './identities.ts';
import type { Owner } from './owners.ts';
import { type Labels, labelsOfText } from './shared-texts.ts';

/** Gives labels; `lib/policy/profiles.ts` makes one from profiles. */
export type LabelsOf = (
  subject: {
    readonly kind: string;
    readonly cluster: string;
    readonly namespace: string;
    readonly labels: Labels;
    readonly annotations: Labels;
  },
  namespaceLabels: Labels,
) => { readonly labels: Labels };

/** An identity that an owner had until `untilMs`. */
export interface IdentityPeriod {
  readonly untilMs: number;
  readonly identity: number;
  /** From then to `untilMs` it may have been another; absent where it was this one throughout. */
  readonly unsureFromMs?: number;
}

interface OwnLabels {
  readonly labels: Labels;
  readonly annotations: Labels;
}

const cacheBits = 16;
const keyNumbers = 3;
const kindCodes: Readonly<Record<string, number>> = { pod: 0, node: 1, vm: 2, host: 3 };

export class Labelling {
  readonly #identities: IdentityTable;
  #labelsOf: LabelsOf;
  /** Direct-mapped, by kind and namespace, labels, annotations: pods alike are labelled once. */
  readonly #keys = new Float64Array(keyNumbers << cacheBits);
  readonly #values = new Int32Array(1 << cacheBits);

  constructor(identities: IdentityTable, labelsOf: LabelsOf) {
    this.#identities = identities;
    this.#labelsOf = labelsOf;
  }

  /** Uses other profiles from now on. */
  use(labelsOf: LabelsOf): void {
    this.#labelsOf = labelsOf;
    this.#keys.fill(0);
  }

  /** The identity that an owner has now. */
  present(owner: Owner): number {
    const { namespace, kind, labels, annotations } = owner;
    const kindCode = kindCodes[kind];
    if (kindCode === undefined || namespace === null)
      return this.#identity(owner, ownLabels(owner), namespace?.labels ?? {});
    const first = namespace.stamp * 4 + kindCode;
    let hash = Math.imul(labels.serial, 0x9e3779b1) ^ Math.imul(annotations.serial, 0x85ebca6b);
    hash = Math.imul(hash ^ (hash >>> 15) ^ first, 0xc2b2ae35);
    const place = (hash ^ (hash >>> 16)) & ((1 << cacheBits) - 1);
    const key = place * keyNumbers;
    const keys = this.#keys;
    if (keys[key] === first && keys[key + 1] === labels.serial && keys[key + 2] === annotations.serial)
      return this.#values[place] ?? 0;
    const identity = this.#identity(owner, ownLabels(owner), namespace.labels);
    keys[key] = first;
    keys[key + 1] = labels.serial;
    keys[key + 2] = annotations.serial;
    this.#values[place] = identity;
    return identity;
  }

  /** Identities that an owner had before, oldest first; null where it always had the one it has now. */
  before(owner: Owner, present: number): IdentityPeriod[] | null {
    const own = owner.extra?.former;
    // What its namespace was before it was there does not matter.
    const around = owner.namespace?.former.filter(({ untilMs }) => untilMs > owner.sinceMs);
    if (own === undefined && (around === undefined || around.length === 0)) return null;
    const ends = new Set<number>();
    const unsure = new Map<number, number>();
    for (const { untilMs, knownToMs } of [...(own ?? []), ...(around ?? [])]) {
      ends.add(untilMs);
      if (knownToMs !== undefined) unsure.set(untilMs, Math.min(knownToMs, unsure.get(untilMs) ?? knownToMs));
    }
    const now = ownLabels(owner);
    const periods: IdentityPeriod[] = [];
    for (const untilMs of [...ends].sort((a, b) => a - b)) {
      const labels = inForceUntil(own, untilMs) ?? now;
      const namespaceLabels = inForceUntil(around, untilMs)?.labels ?? owner.namespace?.labels ?? {};
      const identity = this.#identity(owner, labels, namespaceLabels);
      if (periods.at(-1)?.identity === identity) periods.pop();
      const unsureFromMs = unsure.get(untilMs);
      periods.push(unsureFromMs === undefined ? { untilMs, identity } : { untilMs, identity, unsureFromMs });
    }
    if (periods.at(-1)?.identity === present) periods.pop();
    return periods.length === 0 ? null : periods;
  }

  #identity(owner: Owner, own: OwnLabels, namespaceLabels: Labels): number {
    const { kind, name } = owner;
    const cluster = owner.namespace?.cluster ?? '';
    const namespace = owner.namespace?.name ?? '';
    if (kind === 'name') {
      const zone = owner.extra?.zone ?? 'inside';
      return this.#identities.intern({ kind, cluster, namespace, name, zone, labels: own.labels }).index;
    }
    const { labels } = this.#labelsOf(
      { kind, cluster, namespace, labels: own.labels, annotations: own.annotations },
      namespaceLabels,
    );
    return this.#identities.intern({
      kind,
      cluster,
      namespace,
      name: kind === 'service' ? name : '',
      zone: 'inside',
      labels,
    }).index;
  }
}

function ownLabels(owner: Owner): OwnLabels {
  return { labels: labelsOfText(owner.labels), annotations: labelsOfText(owner.annotations) };
}

/** The former labels that were in force just before `untilMs`; undefined where the present ones were. */
function inForceUntil(
  former: readonly FormerLabels[] | undefined,
  untilMs: number,
): FormerLabels | undefined {
  let found: FormerLabels | undefined;
  for (const one of former ?? [])
    if (one.untilMs >= untilMs && (found === undefined || one.untilMs < found.untilMs)) found = one;
  return found;
}

/** What suggestions are made from: edges that no rule explains, with the evidence for each. */
import type { KnownIdentity } from '../draft/edges.ts';

export interface UnexplainedEdge {
  readonly source: KnownIdentity;
  readonly destination: KnownIdentity;
  /** Null where the workload is known. */
  readonly sourceAddress: string | null;
  readonly destinationAddress: string | null;
  readonly port: number;
  readonly protocol: number;
  readonly connections: number;
  readonly bytes: number;
  /** Seconds since the epoch. */
  readonly firstS: number;
  readonly lastS: number;
  /** Minutes in which it was seen; 0 where nobody counted. */
  readonly minutes: number;
  /** Ids of workloads that were seen at the source, some at least. */
  readonly sourceWorkloads: readonly string[];
  readonly destinationWorkloads: readonly string[];
  /** Names that were asked for, the most frequent first. */
  readonly dns: readonly string[];
}

/** Kinds of identity that stand for something with labels of its own. */
const labelledKinds = new Set(['pod', 'vm', 'host', 'node', 'service']);

export function isWorkload({ kind }: KnownIdentity): boolean {
  return labelledKinds.has(kind);
}

/** What an end is in a rule: application and role, a range, a DNS name, or an address outside. */
export type Subject =
  | { readonly type: 'labels'; readonly app: string; readonly role: string }
  | { readonly type: 'range'; readonly name: string }
  | { readonly type: 'name'; readonly name: string }
  | { readonly type: 'outside' };

/** Null where there is nothing that a rule could speak of. */
export function subjectOf(of: KnownIdentity): Subject | null {
  const { app = '', role = '' } = of.labels;
  if (app !== '' || role !== '') return { type: 'labels', app, role };
  if (of.kind === 'name' && of.name !== '') return { type: 'name', name: of.name };
  // Everything public is one range: addresses tell more.
  if (of.kind === 'range')
    return of.name === internetRange ? { type: 'outside' } : { type: 'range', name: of.name };
  return null;
}

/** The range that all public addresses are in that no other range holds. */
export const internetRange = 'internet';

export function subjectKey(subject: Subject): string {
  switch (subject.type) {
    case 'labels':
      return `labels ${subject.app} ${subject.role}`;
    case 'range':
    case 'name':
      return `${subject.type} ${subject.name}`;
    case 'outside':
      return 'outside';
  }
}

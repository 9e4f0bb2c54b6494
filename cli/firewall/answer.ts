/** What POST /api/v1/firewall/audit answers. */
import type { RuleAudit } from '../../lib/firewall/audit.ts';
import type { Holder } from '../../lib/firewall/holders.ts';
import type { Ignored } from '../../lib/firewall/rule.ts';
import type { Completeness } from '../ask/answers.ts';

export type HolderAnswer = Omit<Holder, 'lastUsedS' | 'beforeUntilMs'> & {
  readonly lastUsed: string | null;
  readonly beforeUntil: string | null;
};

export type AuditedRule = Omit<RuleAudit, 'firstS' | 'lastS' | 'holders'> & {
  readonly firstSeen: string | null;
  readonly lastSeen: string | null;
  readonly holders: readonly HolderAnswer[];
};

export interface AuditAnswer {
  readonly format: string;
  readonly match: 'first' | 'any';
  readonly window: { readonly since: string; readonly until: string | null };
  readonly table: string;
  readonly singleFlowsSince: string | null;
  readonly unmatchedFlows: number;
  readonly summary: Readonly<Record<string, number>>;
  readonly rules: readonly AuditedRule[];
  readonly ignored: readonly Ignored[];
  readonly completeness: Completeness;
}

/** A static rule of a firewall, whatever it was written in. */
import type { AddressSet } from './addresses.ts';
import type { Services } from './services.ts';

export const firewallActions = ['allow', 'deny'] as const;
export type FirewallAction = (typeof firewallActions)[number];

export interface StaticRule {
  /** Position in the order of the firewall, from 0. */
  readonly index: number;
  /** Line of the file it stands on, from 1; of nftables JSON the position in its list. */
  readonly line: number;
  readonly action: FirewallAction;
  readonly source: AddressSet;
  readonly destination: AddressSet;
  readonly services: Services;
  readonly comment: string;
  /** Columns of a CSV that have no meaning here, kept as they are. */
  readonly columns: Readonly<Record<string, string>>;
  /**
   * Conditions that flows do not tell, such as an interface: what matches the rest may have passed by this rule or not,
   * so such a rule never keeps a flow from those after it.
   */
  readonly conditions: readonly string[];
}

/** What was not taken as a rule, and why. */
export interface Ignored {
  readonly line: number;
  readonly text: string;
  readonly reason: string;
}

/** Rules of a file, or what is wrong with it: with problems there are no rules. */
export interface RuleFile {
  readonly format: RuleFormat;
  readonly rules: readonly StaticRule[];
  readonly ignored: readonly Ignored[];
  /** `line 3: ...`, all at once. */
  readonly problems: readonly string[];
}

export const ruleFormats = ['csv', 'nftables', 'iptables-save'] as const;
export type RuleFormat = (typeof ruleFormats)[number];

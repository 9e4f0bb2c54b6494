/** The fewest label keys that tell those who were seen from everybody else. */

import type { LabelSelector } from '../../schemas/policy.ts';
import type { KnownIdentity } from '../draft/edges.ts';
import { isWorkload } from './edges.ts';

/** Application and role; either may be empty, not both. */
export interface Part {
  readonly app: string;
  readonly role: string;
}

/** A role stands for all of its applications when so many of them were seen, and at least so large a share. */
const minAppsOfRole = 4;
const minShareOfRole = 0.75;

const keyOf = ({ app, role }: Part): string => `${app} ${role}`;

function listOf(values: Iterable<string>): string | string[] {
  const sorted = [...new Set(values)].sort();
  const [only] = sorted;
  return sorted.length === 1 && only !== undefined ? only : sorted;
}

export class SelectorChooser {
  readonly #rolesOf = new Map<string, Set<string>>();
  readonly #appsOf = new Map<string, Set<string>>();

  constructor(identities: Iterable<KnownIdentity>) {
    for (const identity of identities) {
      const { app = '', role = '' } = identity.labels;
      if ((app === '' && role === '') || (!isWorkload(identity) && identity.kind !== 'range')) continue;
      const roles = this.#rolesOf.get(app) ?? new Set();
      this.#rolesOf.set(app, roles.add(role));
      const apps = this.#appsOf.get(role) ?? new Set();
      this.#appsOf.set(role, apps.add(app));
    }
  }

  #isWholeRole(role: string, seen: ReadonlySet<string>): boolean {
    const all = this.#appsOf.get(role)?.size ?? 0;
    return role !== '' && seen.size >= minAppsOfRole && seen.size >= all * minShareOfRole;
  }

  /** Selectors that together select all parts; in the order of their texts. */
  choose(parts: readonly Part[]): LabelSelector[] {
    const left = new Map(parts.map((part) => [keyOf(part), part]));
    const selectors: LabelSelector[] = [];
    const wholeRoles: string[] = [];
    const appsByRole = new Map<string, Set<string>>();
    for (const { app, role } of parts) appsByRole.set(role, (appsByRole.get(role) ?? new Set()).add(app));
    for (const [role, apps] of appsByRole) {
      if (!this.#isWholeRole(role, apps)) continue;
      wholeRoles.push(role);
      for (const [key, part] of left) if (part.role === role) left.delete(key);
    }
    if (wholeRoles.length > 0) selectors.push({ role: listOf(wholeRoles) });
    const rolesByApp = new Map<string, Set<string>>();
    for (const { app, role } of left.values())
      rolesByApp.set(app, (rolesByApp.get(app) ?? new Set()).add(role));
    // Applications that are seen in the same roles share a selector.
    const groups = new Map<string, { readonly apps: string[]; readonly roles: readonly string[] }>();
    for (const [app, roles] of rolesByApp) {
      const isWholeApp = app !== '' && roles.size === (this.#rolesOf.get(app)?.size ?? 0);
      const named = isWholeApp || (roles.size === 1 && roles.has('')) ? [] : [...roles].sort();
      const key = named.join(' ');
      const group = groups.get(key) ?? { apps: [], roles: named };
      group.apps.push(app);
      groups.set(key, group);
    }
    for (const { apps, roles } of groups.values()) {
      const named = apps.filter((app) => app !== '');
      if (named.length > 0)
        selectors.push({ app: listOf(named), ...(roles.length === 0 ? {} : { role: listOf(roles) }) });
      if (named.length < apps.length && roles.length > 0) selectors.push({ role: listOf(roles) });
    }
    return selectors.sort((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1));
  }
}

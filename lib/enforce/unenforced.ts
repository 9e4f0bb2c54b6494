/** What of a policy addresses and ports can't say, so that no firewall can enforce it: as sentences. */
import type { Actor } from '../../schemas/policy.ts';
import { dnsCovers } from '../policy/match.ts';
import type { World } from './world.ts';

function dnsNames(actors: readonly Actor[], lists: ReadonlyMap<string, readonly string[]>): string[] {
  return actors.flatMap((actor) => {
    if ('dns' in actor) return [actor.dns].flat();
    return 'ipList' in actor ? (lists.get(actor.ipList) ?? []) : [];
  });
}

/** One sentence for each rule in force that is exported in part or not at all. */
export function unenforced(world: World): string[] {
  const lists = new Map(world.document.ipLists.map(({ name, names }) => [name, names ?? []]));
  const addressed = world.events.flatMap((event) =>
    event.type === 'name' && event.addresses.length > 0 ? [event.name] : [],
  );
  const isKnown = (dns: string): boolean => addressed.some((name) => dnsCovers(dns, name));
  return world.engine.rules.flatMap(({ ruleset, rule, ports }) => {
    const name = `${ruleset.name}/${rule.name}`;
    const out: string[] = [];
    const unknown = [...new Set(dnsNames([...rule.from, ...rule.to], lists))].filter((dns) => !isKnown(dns));
    if (unknown.length > 0)
      out.push(
        `${name}: the inventory knows no addresses of ${unknown.sort().join(', ')}, so these DNS names are left out`,
      );
    if (ports.some(({ process }) => process !== -1))
      out.push(`${name}: asks for a process, which a packet does not name, so these services are left out`);
    return out;
  });
}

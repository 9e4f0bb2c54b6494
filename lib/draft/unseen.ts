/**
 * What rollups do not tell and rules may ask: addresses of known workloads, the process, DNS names that were not listed
 * yet. For each such rule there is a copy that asks for all the rest; an edge that meets a copy has to be read from single
 * flows, every other edge is decided without them.
 */
import type { Actor, PolicyDocument, PortSpec, ServiceRef } from '../../schemas/policy.ts';

/** Which facts about an edge are not at hand. */
export interface Unseen {
  readonly sourceAddress: boolean;
  readonly destinationAddress: boolean;
  /** The destination has no workload, so that a name that was asked for may say what it is. */
  readonly destinationName: boolean;
}

const anyone: Actor = { any: true };

/** A list of both kinds depends on both. */
interface ListContents {
  readonly addresses: boolean;
  readonly names: boolean;
}

type Lists = ReadonlyMap<string, ListContents>;

function asksAddress(actor: Actor, lists: Lists): boolean {
  return 'cidr' in actor || ('ipList' in actor && lists.get(actor.ipList)?.addresses === true);
}

function asksName(actor: Actor, lists: Lists): boolean {
  return 'dns' in actor || ('ipList' in actor && lists.get(actor.ipList)?.names === true);
}

function withoutProcess({ process: _, ...rest }: PortSpec): PortSpec {
  return rest;
}

interface Directed {
  readonly from: readonly Actor[];
  readonly to: readonly Actor[];
  readonly services?: readonly ServiceRef[];
}

interface Copying {
  readonly lists: Lists;
  readonly processServices: ReadonlySet<string>;
  readonly unseen: Unseen;
}

function asksProcess(services: readonly ServiceRef[] | undefined, named: ReadonlySet<string>): boolean {
  return (services ?? []).some((ref) =>
    typeof ref === 'string' ? named.has(ref) : ref.process !== undefined,
  );
}

/** The copy of a rule, or nothing where the rule asks for nothing unseen. */
function copyOf<R extends Directed>(rule: R, { lists, processServices, unseen }: Copying): R[] {
  const opensFrom = (actor: Actor): boolean => unseen.sourceAddress && asksAddress(actor, lists);
  const opensTo = (actor: Actor): boolean =>
    (unseen.destinationAddress && asksAddress(actor, lists)) ||
    (unseen.destinationName && asksName(actor, lists));
  const depends =
    rule.from.some(opensFrom) || rule.to.some(opensTo) || asksProcess(rule.services, processServices);
  if (!depends) return [];
  return [
    {
      ...rule,
      from: rule.from.map((actor) => (opensFrom(actor) ? anyone : actor)),
      to: rule.to.map((actor) => (opensTo(actor) ? anyone : actor)),
      ...(rule.services === undefined
        ? {}
        : { services: rule.services.map((ref) => (typeof ref === 'string' ? ref : withoutProcess(ref))) }),
    },
  ];
}

/** The policy of those copies: an edge that it allows or denies can't be decided without what is unseen. */
export function unseenPolicy(document: PolicyDocument, unseen: Unseen): PolicyDocument {
  const copying: Copying = {
    unseen,
    lists: new Map(
      document.ipLists.map(({ name, cidrs, names }) => [
        name,
        { addresses: (cidrs ?? []).length > 0, names: (names ?? []).length > 0 },
      ]),
    ),
    processServices: new Set(
      document.services.flatMap(({ name, ports }) =>
        ports.some(({ process }) => process !== undefined) ? [name] : [],
      ),
    ),
  };
  return {
    ...document,
    services: document.services.map((service) => ({ ...service, ports: service.ports.map(withoutProcess) })),
    rulesets: document.rulesets.map((ruleset) => ({
      ...ruleset,
      rules: ruleset.rules.flatMap((rule) => copyOf(rule, copying)),
    })),
    boundaries: (document.boundaries ?? []).flatMap((boundary) => copyOf(boundary, copying)),
  };
}

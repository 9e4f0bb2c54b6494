/** Finds live workloads and services that claim one address in one network at the same time. */
import type { InventoryEvent, ServiceEvent, WorkloadEvent } from '../../lib/inventory/events.ts';

export interface Conflict {
  readonly network: string;
  readonly ip: string;
  /** Who claims it, two or more, sorted: `pod shop/web-0 (east)`. */
  readonly claimants: readonly string[];
}

interface Claims {
  readonly name: string;
  /** `network ip` of every open address. */
  readonly addresses: readonly string[];
}

/** Owners of addresses. Listed names are none: names may well share an address. */
type Claimant = WorkloadEvent | ServiceEvent;

function asClaimant(event: InventoryEvent | null): Claimant | null {
  return event?.type === 'workload' || event?.type === 'service' ? event : null;
}

function nameOf(event: Claimant): string {
  const path = event.namespace === '' ? event.name : `${event.namespace}/${event.name}`;
  const kind = event.type === 'service' ? 'service' : event.kind;
  return `${kind} ${path}${event.cluster === '' ? '' : ` (${event.cluster})`}`;
}

function openAddresses(event: Claimant): string[] {
  if (event.untilMs !== undefined) return [];
  return event.addresses.flatMap(({ network, ip, untilMs }) =>
    untilMs === undefined ? [`${network} ${ip}`] : [],
  );
}

/** Follows publications; several changes that belong together are judged together, at {@link AddressClaims.settle}. */
export class AddressClaims {
  readonly #claims = new Map<string, Claims>();
  readonly #claimants = new Map<string, Set<string>>();
  readonly #touched = new Set<string>();
  readonly #conflicts = new Map<string, Conflict>();

  /** The newest event of an entity; `null` when it is no more. */
  follow(key: string, event: InventoryEvent | null): void {
    for (const address of this.#claims.get(key)?.addresses ?? []) {
      const claimants = this.#claimants.get(address);
      claimants?.delete(key);
      if (claimants?.size === 0) this.#claimants.delete(address);
      this.#touched.add(address);
    }
    this.#claims.delete(key);
    const claimant = asClaimant(event);
    const addresses = claimant === null ? [] : openAddresses(claimant);
    if (claimant === null || addresses.length === 0) return;
    this.#claims.set(key, { name: nameOf(claimant), addresses });
    for (const address of addresses) {
      const claimants = this.#claimants.get(address) ?? new Set();
      claimants.add(key);
      this.#claimants.set(address, claimants);
      this.#touched.add(address);
    }
  }

  /** Conflicts that began or changed since the last call. */
  settle(): Conflict[] {
    const news: Conflict[] = [];
    for (const address of this.#touched) {
      const keys = this.#claimants.get(address);
      if (keys === undefined || keys.size < 2) {
        this.#conflicts.delete(address);
        continue;
      }
      const [network = '', ip = ''] = address.split(' ');
      const claimants = [...keys].map((key) => this.#claims.get(key)?.name ?? key).sort();
      const before = this.#conflicts.get(address);
      if (before?.claimants.join() === claimants.join()) continue;
      const conflict = { network, ip, claimants };
      this.#conflicts.set(address, conflict);
      news.push(conflict);
    }
    this.#touched.clear();
    return news;
  }

  /** Conflicts as of the last {@link AddressClaims.settle}, `limit` at most. */
  current(limit: number): Conflict[] {
    const some: Conflict[] = [];
    for (const conflict of this.#conflicts.values()) {
      if (some.length >= limit) break;
      some.push(conflict);
    }
    return some;
  }

  get count(): number {
    return this.#conflicts.size;
  }
}

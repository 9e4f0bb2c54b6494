/** What pending rows wait for: for each source (or network that several sources share) how far it has to be complete. */
import type { Inventory } from '../../lib/inventory/inventory.ts';

interface Need {
  leastMs: number;
  mostMs: number;
}

export class Needs {
  readonly #bySource = new Map<number, Need>();
  readonly #byNetwork = new Map<number, Need>();

  clear(): void {
    this.#bySource.clear();
    this.#byNetwork.clear();
  }

  /** A row waits until source `source` is complete to `needMs`. */
  note(source: number, needMs: number): void {
    note(this.#bySource, source, needMs);
  }

  /** A row waits until all that speak of network `network` are. */
  noteShared(network: number, needMs: number): void {
    note(this.#byNetwork, network, needMs);
  }

  /** Takes over what others wait for. */
  add(others: Needs): void {
    for (const [source, need] of others.#bySource) widen(this.#bySource, source, need);
    for (const [network, need] of others.#byNetwork) widen(this.#byNetwork, network, need);
  }

  /** How long until the first pending row can be settled, ms, if watermarks go on with time; 0: it can be now. */
  shortestWaitMs(inventory: Inventory, staleMs: number): number {
    let shortest = Number.POSITIVE_INFINITY;
    for (const [source, { leastMs }] of this.#bySource)
      shortest = Math.min(shortest, leastMs - (inventory.completeToMs[source] ?? 0));
    for (const [network, { leastMs }] of this.#byNetwork)
      shortest = Math.min(shortest, leastMs - inventory.sharedCompleteToMs(network, staleMs));
    return Math.max(0, shortest);
  }

  /** Whether for some source all that waits for it can be settled. */
  isMet(inventory: Inventory, staleMs: number): boolean {
    for (const [source, { mostMs }] of this.#bySource)
      if ((inventory.completeToMs[source] ?? 0) >= mostMs) return true;
    for (const [network, { mostMs }] of this.#byNetwork)
      if (inventory.sharedCompleteToMs(network, staleMs) >= mostMs) return true;
    return this.#bySource.size === 0 && this.#byNetwork.size === 0;
  }
}

function note(needs: Map<number, Need>, key: number, needMs: number): void {
  const known = needs.get(key);
  if (known === undefined) needs.set(key, { leastMs: needMs, mostMs: needMs });
  else {
    if (needMs < known.leastMs) known.leastMs = needMs;
    if (needMs > known.mostMs) known.mostMs = needMs;
  }
}

function widen(needs: Map<number, Need>, key: number, { leastMs, mostMs }: Need): void {
  note(needs, key, leastMs);
  note(needs, key, mostMs);
}

/** Node ports: on every node of a cluster, a port and protocol that lead to a service. */
import type { Owner } from './owners.ts';

/** IANA protocol numbers of what Kubernetes calls protocols. */
const protocolNumbers: Readonly<Record<string, number>> = { TCP: 6, UDP: 17, SCTP: 132 };

interface Holder {
  readonly owner: number;
  readonly sinceMs: number;
  readonly untilMs: number;
}

function* keysOf(service: Owner): Generator<string> {
  for (const { nodePort, protocol } of service.extra?.service?.ports ?? []) {
    if (nodePort === undefined) continue;
    yield `${nodePort}/${protocolNumbers[protocol.toUpperCase()] ?? 0}/${service.cluster}`;
  }
}

export class NodePorts {
  readonly #holders = new Map<string, Holder[]>();

  add(service: Owner): void {
    const { index: owner, sinceMs, untilMs } = service;
    const holder: Holder = { owner, sinceMs, untilMs };
    for (const key of keysOf(service)) {
      const holders = this.#holders.get(key);
      if (holders === undefined) this.#holders.set(key, [holder]);
      else holders.push(holder);
    }
  }

  remove(service: Owner): void {
    for (const key of keysOf(service)) {
      const rest = (this.#holders.get(key) ?? []).filter(({ owner }) => owner !== service.index);
      if (rest.length === 0) this.#holders.delete(key);
      else this.#holders.set(key, rest);
    }
  }

  /** The service (owner index) that had the port at the time, the newest of several; -1 for none. */
  find(cluster: string, port: number, protocol: number, timeMs: number): number {
    if (this.#holders.size === 0) return -1;
    let found: Holder | undefined;
    for (const holder of this.#holders.get(`${port}/${protocol}/${cluster}`) ?? []) {
      if (holder.sinceMs > timeMs || timeMs >= holder.untilMs) continue;
      if (found === undefined || holder.sinceMs > found.sinceMs) found = holder;
    }
    return found?.owner ?? -1;
  }
}

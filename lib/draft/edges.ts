/** Edges as they are read from the store, and sums that count a connection once although both of its ends report it. */
import type { Selectable } from '../policy/engine.ts';

/** An identity as the store has it. */
export interface KnownIdentity extends Selectable {
  /** `identities.id`. */
  readonly id: string;
  readonly zone: 'inside' | 'outside';
}

/** Address of an end whose workload is known: rollups do not keep it. */
export const noAddress = '::';

/**
 * What was seen of one edge with one stored verdict by one side. Addresses are IPv6 text as ClickHouse writes it. Of an
 * edge from single flows `sourceAddress`, `destinationAddress`, `process` and `dns` say what rollups do not.
 */
export interface EdgeRow {
  readonly source: string;
  readonly destination: string;
  /** Part of the key of the edge: `noAddress` where the workload is known. */
  readonly sourceIp: string;
  readonly destinationIp: string;
  readonly port: number;
  readonly protocol: number;
  /** Codes of the closed lists. */
  readonly verdict: number;
  readonly reason: number;
  /** `rules.id`, "0" for none. */
  readonly rule: string;
  readonly side: number;
  readonly flows: number;
  readonly connections: number;
  readonly bytesForward: number;
  readonly bytesReverse: number;
  /** Seconds since the epoch. */
  readonly firstS: number;
  readonly lastS: number;
  readonly sourceAddress?: string;
  readonly destinationAddress?: string;
  readonly process?: string;
  readonly dns?: string;
}

/** The key of an edge, whatever was said of it. */
export function edgeKeyOf(row: EdgeRow): string {
  return `${row.source} ${row.destination} ${row.sourceIp} ${row.destinationIp} ${row.port} ${row.protocol}`;
}

export interface Amount {
  readonly connections: number;
  readonly bytes: number;
}

const sideCount = 3;

/** Sums by side; what is told is the larger of the sides, column by column, which is exact when either is complete. */
export class SidedSums {
  readonly #connections = new Float64Array(sideCount);
  readonly #forward = new Float64Array(sideCount);
  readonly #reverse = new Float64Array(sideCount);
  flows = 0;
  firstS = Number.POSITIVE_INFINITY;
  lastS = 0;

  add(row: EdgeRow): void {
    const { side } = row;
    this.#connections[side] = (this.#connections[side] ?? 0) + row.connections;
    this.#forward[side] = (this.#forward[side] ?? 0) + row.bytesForward;
    this.#reverse[side] = (this.#reverse[side] ?? 0) + row.bytesReverse;
    this.flows += row.flows;
    this.firstS = Math.min(this.firstS, row.firstS);
    this.lastS = Math.max(this.lastS, row.lastS);
  }

  get connections(): number {
    return Math.max(...this.#connections);
  }

  get bytes(): number {
    return Math.max(...this.#forward) + Math.max(...this.#reverse);
  }
}

/** Identities by the index that the engine knows them by; 0 stands for what the store has no identity of. */
export class IdentityIndex {
  readonly list: KnownIdentity[] = [];
  readonly #byId = new Map<string, number>();

  constructor(identities: Iterable<KnownIdentity>) {
    this.add({ id: '0', kind: 'unknown', cluster: '', namespace: '', name: '', zone: 'inside', labels: {} });
    for (const identity of identities) this.add(identity);
  }

  add(identity: KnownIdentity): number {
    const known = this.#byId.get(identity.id);
    if (known !== undefined) return known;
    const index = this.list.length;
    this.list.push(identity);
    this.#byId.set(identity.id, index);
    return index;
  }

  indexOf(id: string): number {
    return this.#byId.get(id) ?? 0;
  }

  of(id: string): KnownIdentity {
    const identity = this.list[this.indexOf(id)];
    if (identity === undefined) throw new RangeError('the index has no identity 0');
    return identity;
  }
}

/**
 * Those who own addresses, compactly: a million of them stay in memory. Each keeps what its last event said, without
 * what it has in common with others; the event itself is made again when somebody asks for it.
 */
import { formatAddress } from '../net/address.ts';
import type {
  AddressInterval,
  FormerLabels,
  NameEvent,
  ServiceEvent,
  WorkloadEvent,
  WorkloadKind,
} from './events.ts';
import type { Namespace } from './namespaces.ts';
import { pageRecords, RunPool } from './runs.ts';
import { labelsOfText, type SharedText } from './shared-texts.ts';

/** Events of those who own addresses. */
export type OwnerEvent = WorkloadEvent | ServiceEvent | NameEvent;

export type OwnerKind = WorkloadKind | 'service' | 'name';

/** What few owners have. */
export interface OwnerExtra {
  /** Intervals of which the first part, up to `certainFromMs`, is not sure. */
  readonly unsure?: readonly AddressInterval[];
  readonly former?: readonly FormerLabels[];
  readonly service?: Pick<ServiceEvent, 'selector' | 'ports'>;
  readonly dns?: readonly string[];
  readonly zone?: 'inside' | 'outside';
}

/** Address intervals that one owner may have; of more the last ones of its event are left out. */
export const maxOwnerAddresses = pageRecords;

/** What an owner asks its inventory. */
export interface OwnerHome {
  readonly addresses: OwnedAddresses;
  networkName(network: number): string;
  idOf(owner: number): bigint;
  identityOf(owner: number): number;
}

/** Somebody who owns addresses: a workload, a service with its virtual ones, a listed name with those it was found to have. */
export class Owner {
  readonly index: number;
  readonly #home: OwnerHome;
  readonly kind: OwnerKind;
  /** Empty for a listed name. */
  readonly uid: string;
  name = '';
  /** Null for a listed name. */
  namespace: Namespace | null = null;
  /** Place among the members of its namespace. */
  memberAt = 0;
  node: SharedText;
  labels: SharedText;
  annotations: SharedText;
  hostNetwork = false;
  sinceMs = 0;
  untilMs = 0;
  /** Its address intervals, in {@link OwnerHome.addresses}. */
  run = -1;
  addressCount = 0;
  extra: OwnerExtra | null = null;
  /** Another owner with the same uid. */
  sameUid: Owner | null = null;

  constructor(home: OwnerHome, index: number, kind: OwnerKind, uid: string, empty: SharedText) {
    this.#home = home;
    this.index = index;
    this.kind = kind;
    this.uid = uid;
    this.node = empty;
    this.labels = empty;
    this.annotations = empty;
  }

  /** `workloads.id`; 0 for services and names, which are identities but no workloads. */
  get id(): bigint {
    return this.#home.idOf(this.index);
  }

  /** Index of the identity it has now. */
  get identity(): number {
    return this.#home.identityOf(this.index);
  }

  get cluster(): string {
    return this.namespace?.cluster ?? '';
  }

  /** What its last event said, without what was no use. */
  get event(): OwnerEvent {
    const { uid, name, extra } = this;
    const labels = labelsOfText(this.labels);
    const addresses = this.#home.addresses.list(this, (network) => this.#home.networkName(network));
    if (this.kind === 'name') {
      const { dns = [], zone = 'inside' } = extra ?? {};
      return { v: 1, type: 'name', name, dns: [...dns], zone, labels, addresses };
    }
    const common = {
      v: 1 as const,
      cluster: this.cluster,
      uid,
      name,
      namespace: this.namespace?.name ?? '',
      labels,
      annotations: labelsOfText(this.annotations),
      addresses,
      sinceMs: this.sinceMs,
      ...(this.untilMs === Number.POSITIVE_INFINITY ? {} : { untilMs: this.untilMs }),
      ...(extra?.former === undefined ? {} : { former: [...extra.former] }),
    };
    if (this.kind === 'service') {
      const { selector = {}, ports = [] } = extra?.service ?? {};
      return { ...common, type: 'service', selector, ports };
    }
    const { kind, hostNetwork } = this;
    return { ...common, type: 'workload', kind, node: this.node.text, hostNetwork };
  }
}

/** Doubles of an address interval: network, since, until, and the address in the place of two. */
const stride = 5;
const addressDouble = 3;

/** The address intervals of all owners, in flat memory. */
export class OwnedAddresses {
  readonly #runs = new RunPool(stride);

  /** Gives the owner room for `count` intervals, in place of what it had. */
  resize(owner: Owner, count: number): void {
    if (owner.run >= 0 && (count === 0 || count > this.#runs.capacityOf(owner.run))) {
      this.#runs.free(owner.run);
      owner.run = -1;
    }
    if (owner.run < 0 && count > 0) owner.run = this.#runs.allocate(count);
    owner.addressCount = count;
  }

  set(
    owner: Owner,
    position: number,
    network: number,
    address: Uint8Array,
    sinceMs: number,
    untilMs: number,
  ): void {
    const data = this.#runs.segmentOf(owner.run);
    const at = this.#runs.offsetOf(owner.run) + position * stride;
    data[at] = network;
    data[at + 1] = sinceMs;
    data[at + 2] = untilMs;
    new Uint8Array(data.buffer, (at + addressDouble) * 8, 16).set(address);
  }

  /** Calls with each interval; the address is the four words at `at` of `words`. */
  each(
    owner: Owner,
    call: (network: number, words: Uint32Array, at: number, sinceMs: number, untilMs: number) => void,
  ): void {
    if (owner.addressCount === 0) return;
    const data = this.#runs.segmentOf(owner.run);
    const words = this.#runs.wordsOf(owner.run);
    const base = this.#runs.offsetOf(owner.run);
    for (let i = 0; i < owner.addressCount; i++) {
      const at = base + i * stride;
      call(data[at] ?? 0, words, (at + addressDouble) * 2, data[at + 1] ?? 0, data[at + 2] ?? 0);
    }
  }

  list(owner: Owner, networkName: (network: number) => string): AddressInterval[] {
    const list: AddressInterval[] = [];
    this.each(owner, (network, words, at, sinceMs, untilMs) => {
      list.push({
        ip: formatAddress(new Uint8Array(words.buffer, at * 4, 16)),
        network: networkName(network),
        sinceMs,
        ...(untilMs === Number.POSITIVE_INFINITY ? {} : { untilMs }),
      });
    });
    return list;
  }

  get byteLength(): number {
    return this.#runs.byteLength;
  }
}

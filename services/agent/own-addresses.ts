/** Which side of a connection this host is on. */

import { type Cidr, formatAddress, parseAddress, parseCidr } from '../../lib/net/address.ts';
import { findStack, makeCidrMap } from '../../lib/net/cidr-map.ts';
import type { Side } from '../../schemas/closed-lists.ts';
import type { Ends } from './flow-event.ts';

/** @throws {Error} naming the setting and the text that is no block of addresses. */
export function parseCidrs(setting: string, texts: readonly string[]): Cidr[] {
  return texts.map((text) => {
    const cidr = parseCidr(text);
    if (cidr === null) throw new Error(`${setting}: '${text}' is no address and no CIDR such as 10.0.0.0/8`);
    return cidr;
  });
}

/** Tells whether an address (text) lies in one of the blocks. */
export function cidrMatcher(cidrs: readonly Cidr[]): (address: string) => boolean {
  if (cidrs.length === 0) return () => false;
  const map = makeCidrMap(cidrs);
  return (text) => {
    const address = parseAddress(text);
    return address !== null && findStack(map, address) !== 0;
  };
}

/** Puts an address into the one text form that is used for comparing. */
function normal(text: string): string {
  const address = parseAddress(text.replace(/%.*$/, ''));
  return address === null ? text : formatAddress(address);
}

/** The addresses that count as this host: those of its interfaces, loopback, and the configured blocks. */
export class OwnAddresses {
  readonly #inLocalCidrs: (address: string) => boolean;
  #addresses: ReadonlySet<string> = new Set();

  constructor(localCidrs: readonly Cidr[]) {
    this.#inLocalCidrs = cidrMatcher(localCidrs);
  }

  /** Takes the interfaces' addresses as they are now. */
  update(addresses: readonly string[]): void {
    this.#addresses = new Set(addresses.map(normal));
  }

  /** An address of this very network namespace. */
  isInterface(address: string): boolean {
    return address.startsWith('127.') || address === '::1' || this.#addresses.has(address);
  }

  has(address: string): boolean {
    return this.isInterface(address) || this.#inLocalCidrs(address);
  }

  /** Source wins where both ends are here, so that a loopback connection is one flow. */
  sideOf(ends: Ends): Side {
    if (this.has(ends.source)) return 'source';
    return this.has(ends.destination) ? 'destination' : 'middle';
  }
}

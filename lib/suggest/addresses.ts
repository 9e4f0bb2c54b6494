/** CIDRs that hold exactly some addresses: neighbours are joined only where all of a block was seen. */
import { type Cidr, formatAddress, isMapped, parseAddress } from '../net/address.ts';

function toNumber(bytes: Uint8Array): bigint {
  return BigInt(`0x${Buffer.from(bytes).toString('hex')}`);
}

function toBytes(value: bigint): Uint8Array {
  return Uint8Array.from(Buffer.from(value.toString(16).padStart(32, '0'), 'hex'));
}

export function cidrText({ base, prefix }: Cidr): string {
  const mapped = isMapped(base) && prefix >= 96;
  const length = mapped ? prefix - 96 : prefix;
  return length === (mapped ? 32 : 128) ? formatAddress(base) : `${formatAddress(base)}/${length}`;
}

/** The fewest CIDRs that hold these addresses and no others, ascending. What is no address is left out. */
export function mergeAddresses(addresses: readonly string[]): string[] {
  let blocks = new Map<bigint, number>();
  for (const text of addresses) {
    const bytes = parseAddress(text);
    if (bytes !== null) blocks.set(toNumber(bytes), 128);
  }
  const done: { readonly at: bigint; readonly prefix: number }[] = [];
  for (let prefix = 128; prefix > 0 && blocks.size > 0; prefix--) {
    const size = 1n << BigInt(128 - prefix);
    const next = new Map<bigint, number>();
    for (const [at] of blocks) {
      const sibling = at ^ size;
      if (!blocks.has(sibling)) done.push({ at, prefix });
      else next.set(at & ~size, prefix - 1);
    }
    blocks = next;
  }
  for (const [at] of blocks) done.push({ at, prefix: 0 });
  return done
    .sort((a, b) => (a.at < b.at ? -1 : 1))
    .map(({ at, prefix }) => cidrText({ base: toBytes(at), prefix }));
}

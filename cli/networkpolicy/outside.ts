/** Addresses outside of a cluster, as far as its policies tell them apart. */

import {
  type AddressInterval,
  addressBytes,
  blocksWithHoles,
  cidrInterval,
  ipv4Space,
  ipv6Space,
} from '../../lib/net/intervals.ts';
import type { NetworkPolicy } from '../../lib/networkpolicy/model.ts';

export interface AddressRange extends AddressInterval {
  /** Any of them: to policies all are alike. */
  readonly example: Uint8Array;
}

/** All addresses, cut wherever an ipBlock begins or ends; without ipBlocks three ranges in all. */
export function addressRanges(policies: readonly NetworkPolicy[]): AddressRange[] {
  const cuts = new Set<bigint>();
  for (const { ingress, egress } of policies)
    for (const { peers } of [...(ingress ?? []), ...(egress ?? [])])
      for (const peer of peers ?? []) {
        if (peer.kind !== 'block') continue;
        for (const cidr of [peer.cidr, ...peer.except]) {
          const { from, to } = cidrInterval(cidr);
          cuts.add(from);
          cuts.add(to + 1n);
        }
      }
  const sorted = [...cuts].sort((a, b) => (a < b ? -1 : 1));
  return [ipv4Space, ...ipv6Space].flatMap(({ from, to }) => {
    const begins = [from, ...sorted.filter((cut) => cut > from && cut <= to)];
    return begins.map((begin, i) => ({
      from: begin,
      to: (begins[i + 1] ?? to + 1n) - 1n,
      example: addressBytes(begin),
    }));
  });
}

/** `0.0.0.0/0 except 10.0.0.0/8`; `any address` for all there are. */
export function rangeTexts(ranges: readonly AddressRange[]): string[] {
  const blocks = blocksWithHoles(ranges);
  const texts = blocks.map(({ cidr, except }) =>
    except.length === 0 ? cidr : `${cidr} except ${except.join(', ')}`,
  );
  const isEverything = texts.length === 2 && texts.includes('0.0.0.0/0') && texts.includes('::/0');
  return isEverything ? ['any address'] : texts;
}

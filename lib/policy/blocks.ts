/** The blocks of addresses that a policy speaks of, as sets: a small number for each address says all blocks it lies in. */
import { type Cidr, parseCidr } from '../net/address.ts';
import { type CidrMap, findStack, makeCidrMap, stackOfBlock } from '../net/cidr-map.ts';
import type { BlockEntry } from './conditions.ts';

/** Sets at most: columns keep the number of a set in 16 bits. */
export const maxBlockSets = 65_535;

export class BlockSets {
  readonly #map: CidrMap;
  /** For each stack of blocks the number of its set. */
  readonly #setOf: Uint16Array;
  /** For each set the conditions that an address of it meets. */
  readonly conditions: readonly (readonly number[])[];

  constructor(entries: readonly BlockEntry[]) {
    const cidrs: Cidr[] = [];
    const kept: { readonly condition: number; readonly excluded: boolean }[] = [];
    for (const { text, condition } of entries) {
      const excluded = text.startsWith('!');
      const cidr = parseCidr(excluded ? text.slice(1) : text);
      if (cidr === null) continue;
      cidrs.push(cidr);
      kept.push({ condition, excluded });
    }
    this.#map = makeCidrMap(cidrs);
    const conditions: number[][] = [[]];
    const numbers = new Map<string, number>([['', 0]]);
    this.#setOf = new Uint16Array(this.#map.stacks.length);
    for (const [stack, blocks] of this.#map.stacks.entries()) {
      // Of one list, the innermost block decides whether an address is in or left out.
      const met = new Set<number>();
      for (const block of blocks) {
        const entry = kept[block];
        if (entry?.excluded === true) met.delete(entry.condition);
        else if (entry !== undefined) met.add(entry.condition);
      }
      const list = [...met].sort((a, b) => a - b);
      const key = list.join(',');
      let number = numbers.get(key);
      if (number === undefined) {
        number = conditions.length;
        if (number > maxBlockSets)
          throw new RangeError(
            `the CIDRs of this policy overlap in more than ${maxBlockSets} ways: use fewer ip-lists or CIDRs`,
          );
        conditions.push(list);
        numbers.set(key, number);
      }
      this.#setOf[stack] = number;
    }
    this.conditions = conditions;
  }

  /** The set (0 for none) of the address in the 16 bytes at `offset`. */
  find(address: Uint8Array, offset: number): number {
    return this.#setOf[findStack(this.#map, address, offset)] ?? 0;
  }

  /** The set of all addresses of a block; -1 where they may have different ones. */
  findBlock(block: Cidr): number {
    const stack = stackOfBlock(this.#map, block);
    return stack < 0 ? -1 : (this.#setOf[stack] ?? 0);
  }
}

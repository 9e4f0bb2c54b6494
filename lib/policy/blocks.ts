/** The blocks of addresses that a policy speaks of, as sets: a small number for each address says all blocks it lies in. */
import { type Cidr, parseCidr } from '../net/address.ts';
import { type CidrMap, cidrMapSteps, findStack, stackOfBlock } from '../net/cidr-map.ts';
import type { BlockEntry } from './conditions.ts';
import { finish } from './steps.ts';

/** Sets at most: columns keep the number of a set in 16 bits. */
export const maxBlockSets = 65_535;

interface Tables {
  readonly map: CidrMap;
  /** For each stack of blocks the number of its set. */
  readonly setOf: Uint16Array;
  /** For each set the conditions that an address of it meets. */
  readonly conditions: readonly (readonly number[])[];
}

interface Block {
  readonly condition: number;
  readonly isExcluded: boolean;
}

/** What is met in a stack of blocks: of one list, the innermost block decides whether an address is in or left out. */
function metIn(stack: readonly number[], blocks: readonly Block[]): number[] {
  const met = new Set<number>();
  for (const index of stack) {
    const block = blocks[index];
    if (block?.isExcluded === true) met.delete(block.condition);
    else if (block !== undefined) met.add(block.condition);
  }
  return [...met].sort((a, b) => a - b);
}

const entriesPerStep = 512;

function* tableSteps(entries: readonly BlockEntry[]): Generator<void, Tables> {
  const cidrs: Cidr[] = [];
  const blocks: Block[] = [];
  for (const [i, { text, condition }] of entries.entries()) {
    if (i % entriesPerStep === 0) yield;
    const isExcluded = text.startsWith('!');
    const cidr = parseCidr(isExcluded ? text.slice(1) : text);
    if (cidr === null) continue;
    cidrs.push(cidr);
    blocks.push({ condition, isExcluded });
  }
  const map = yield* cidrMapSteps(cidrs);
  const conditions: number[][] = [[]];
  const numbers = new Map<string, number>([['', 0]]);
  const setOf = new Uint16Array(map.stacks.length);
  for (const [stack, indexes] of map.stacks.entries()) {
    if (stack % entriesPerStep === 0) yield;
    const met = metIn(indexes, blocks);
    const key = met.join(',');
    let number = numbers.get(key);
    if (number === undefined) {
      number = conditions.length;
      if (number > maxBlockSets)
        throw new RangeError(
          `the CIDRs of this policy overlap in more than ${maxBlockSets} ways: use fewer ip-lists or CIDRs`,
        );
      conditions.push(met);
      numbers.set(key, number);
    }
    setOf[stack] = number;
  }
  return { map, setOf, conditions };
}

export class BlockSets {
  readonly #tables: Tables;

  /** @throws {RangeError} where there are more than {@link maxBlockSets} sets */
  constructor(entries: readonly BlockEntry[], tables = finish(tableSteps(entries))) {
    this.#tables = tables;
  }

  /** Makes them in steps, so that whoever runs it can do other things in between. */
  static *steps(entries: readonly BlockEntry[]): Generator<void, BlockSets> {
    return new BlockSets(entries, yield* tableSteps(entries));
  }

  /** For each set the conditions that an address of it meets. */
  get conditions(): readonly (readonly number[])[] {
    return this.#tables.conditions;
  }

  /** The set (0 for none) of the address in the 16 bytes at `offset`. */
  find(address: Uint8Array, offset: number): number {
    return this.#tables.setOf[findStack(this.#tables.map, address, offset)] ?? 0;
  }

  /** The set of all addresses of a block; -1 where they may have different ones. */
  findBlock(block: Cidr): number {
    const stack = stackOfBlock(this.#tables.map, block);
    return stack < 0 ? -1 : (this.#tables.setOf[stack] ?? 0);
  }
}

/** Benches without servers: decoding, address lookup, and the whole enrichment on one core. */
import { pino } from 'pino';
import type { Inventory } from '../lib/inventory/inventory.ts';
import { parseAddress } from '../lib/net/address.ts';
import type { PolicyTimeline } from '../lib/policy/timeline.ts';
import type { NativeBlock } from '../lib/store/native.ts';
import { clearFlowColumns, makeFlowColumns, readFlowBatch } from '../lib/wire/columns.ts';
import { BlockNamer, judgeBlock, spanOfBlock } from '../services/enrich/resolve.ts';
import { flowsBlock, type SliceContent } from '../services/enrich/rows.ts';
import { SeenBatches } from '../services/enrich/sequences.ts';
import { SliceBuilder } from '../services/enrich/slice.ts';
import { AddressTraits } from '../services/enrich/traits.ts';
import { decodePlainly, enrichPlainly, plainOwners } from './plain.ts';
import { type Figure, medianSeconds, mustEqual } from './report.ts';
import { loadWorld, type Traffic } from './traffic.ts';

export const quiet = pino({ level: 'silent' });
const rounds = 5;
/** The plain way is slow: it gets a part of the traffic. */
const plainShare = 8;

export async function benchDecode(traffic: Traffic): Promise<Figure[]> {
  const columns = makeFlowColumns(131072);
  const fast = await medianSeconds(rounds, () => {
    for (const { message, flowCount } of traffic.messages) {
      if (columns.count + flowCount > columns.capacity) clearFlowColumns(columns);
      const result = readFlowBatch(message, columns);
      if (!result.ok) throw new Error(`${result.field} ${result.detail}`);
    }
  });
  const part = traffic.messages.slice(0, Math.ceil(traffic.messages.length / plainShare));
  const partFlows = part.reduce((sum, { flowCount }) => sum + flowCount, 0);
  let plainBytes = 0;
  const plain = await medianSeconds(rounds, () => {
    plainBytes = 0;
    for (const { message } of part)
      for (const flow of decodePlainly(message).flows) plainBytes += flow.bytesForward % 2 ** 32;
  });
  clearFlowColumns(columns);
  let checked = 0;
  for (const { message, flowCount } of part) {
    if (columns.count + flowCount > columns.capacity) clearFlowColumns(columns);
    const result = readFlowBatch(message, columns);
    if (result.ok)
      for (let row = result.firstRow; row < columns.count; row++) checked += columns.bytesForward[row * 2]!;
  }
  mustEqual('bytes of the decoded flows', checked, plainBytes);
  return [
    {
      name: 'Avro to columns',
      value: traffic.flowCount / fast,
      unit: 'flows/s',
      baseline: partFlows / plain,
      against: "avsc's row decoder",
    },
  ];
}

export async function benchLookup(inventory: Inventory): Promise<Figure[]> {
  const now = Date.now();
  const asked: { network: number; words: Uint32Array; text: string; owner: number }[] = [];
  for (const owner of inventory.owners) {
    if (owner === undefined || owner.event.type !== 'workload' || owner.event.hostNetwork) continue;
    for (const { ip, network, untilMs } of owner.event.addresses) {
      if (untilMs !== undefined) continue;
      const bytes = Uint8Array.from(parseAddress(ip)!);
      asked.push({
        network: inventory.network(network),
        words: new Uint32Array(bytes.buffer),
        text: `${network}|${ip}`,
        owner: owner.index,
      });
    }
  }
  // Asked for in no order, as flows come.
  const count = 1 << 20;
  const order = Uint32Array.from({ length: count }, (_, i) => Math.imul(i, 2654435761) >>> 0).map(
    (value) => value % asked.length,
  );
  const words = new Uint32Array(count * 4);
  const networks = new Int32Array(count);
  order.forEach((at, i) => {
    words.set(asked[at]!.words, i * 4);
    networks[i] = asked[at]!.network;
  });
  const texts = Array.from(order, (at) => asked[at]!.text);
  let found = 0;
  const fast = await medianSeconds(rounds, () => {
    found = 0;
    for (let i = 0; i < count; i++) {
      inventory.index.find(networks[i]!, words, i * 4, now, 1000);
      found += inventory.index.foundOwner;
    }
  });
  const map = new Map(asked.map(({ text, owner }) => [text, owner]));
  let plainFound = 0;
  const plain = await medianSeconds(rounds, () => {
    plainFound = 0;
    for (let i = 0; i < count; i++) plainFound += map.get(texts[i]!) ?? -1;
  });
  mustEqual('owners found', found, plainFound);
  return [
    {
      name: `address lookup, ${asked.length} addresses`,
      value: count / fast,
      unit: 'lookups/s',
      baseline: count / plain,
      against: 'Map by ready-made text, which knows no time',
    },
  ];
}

export interface EnrichedBlock {
  readonly rows: NativeBlock;
  readonly rowCount: number;
}

/**
 * Messages to Native blocks, as the enricher does it, without bus and store. What it returns may be called again, and uses
 * the same memory again.
 */
export function makeEnrichment(
  inventory: Inventory,
  policies: PolicyTimeline,
  maxRows = 524288,
): (traffic: Traffic, onBlock: (block: EnrichedBlock) => void) => void {
  const limits = { maxRows, maxBatchRows: maxRows, maxBytes: 1 << 30, maxAgeMs: 1e12, maxAheadMs: 1e12 };
  const scheme = { networkIndex: (name: string) => inventory.network(name), toleranceMs: () => 1000 };
  const spares: SliceBuilder[] = [];
  const nextBuilder = (): SliceBuilder => spares.pop() ?? new SliceBuilder(limits, scheme);
  const { engine } = policies.at(Date.now());
  const traits = new AddressTraits(inventory, engine);
  const judge = ({ columns, batches, resolved, stored }: SliceBuilder): SliceContent => {
    const span = spanOfBlock(columns, policies);
    traits.refresh(span.engine);
    const pending = new BlockNamer(columns, batches, resolved, inventory, traits).nameAll();
    if (pending > 0) throw new Error(`${pending} ends are pending, though nothing is late`);
    const engines = judgeBlock(columns, resolved, inventory, policies, span);
    return { columns, resolved, stored, batches, inventory, engines };
  };
  return (traffic, onBlock) => {
    const seen = new SeenBatches(100_000);
    const home = { partition: 0, partitionCount: 1 };
    const timestampMs = Date.now();
    let builder = nextBuilder();
    let slices: SliceBuilder[] = [];
    let rowCount = 0;
    const send = (): void => {
      const contents = slices.map(judge);
      onBlock({ rows: flowsBlock(contents.map((content) => ({ content, runs: null }))), rowCount });
      for (const slice of slices) slice.clear();
      spares.push(...slices);
      slices = [];
      rowCount = 0;
    };
    const close = (): void => {
      if (rowCount + builder.columns.count > maxRows) send();
      slices.push(builder);
      rowCount += builder.columns.count;
      builder = nextBuilder();
    };
    traffic.messages.forEach(({ agentId, message }, offset) => {
      const busMessage = { offset, timestampMs, key: agentId, value: message, headers: {} };
      while (builder.take(busMessage, home, seen) === 'full') close();
    });
    if (!builder.isEmpty) close();
    if (slices.length > 0) send();
    spares.push(builder);
  };
}

export function enrichAll(
  traffic: Traffic,
  inventory: Inventory,
  policies: PolicyTimeline,
  onBlock: (block: EnrichedBlock) => void,
): void {
  makeEnrichment(inventory, policies)(traffic, onBlock);
}

export async function benchEnrichment(traffic: Traffic): Promise<Figure[]> {
  const { inventory, policies } = loadWorld(traffic);
  const { engine } = policies.at(Date.now());
  let rows = 0;
  const enrich = makeEnrichment(inventory, policies);
  const fast = await medianSeconds(3, () => {
    rows = 0;
    enrich(traffic, ({ rowCount }) => {
      rows += rowCount;
    });
  });
  mustEqual('flows enriched', rows, traffic.flowCount);
  const part = traffic.messages.slice(0, Math.ceil(traffic.messages.length / plainShare));
  const partFlows = part.reduce((sum, { flowCount }) => sum + flowCount, 0);
  const world = { inventory, engine, owners: plainOwners(inventory), ranges: new Map(), verdicts: new Map() };
  const plain = await medianSeconds(3, () => {
    let bytes = 0;
    for (const { message } of part) {
      bytes += enrichPlainly(world, decodePlainly(message))
        .map((row) => JSON.stringify(row))
        .join('\n').length;
    }
    if (bytes === 0) throw new Error('nothing was enriched');
  });
  return [
    {
      name: 'enrichment, one core',
      value: traffic.flowCount / fast,
      unit: 'flows/s',
      baseline: partFlows / plain,
      against: 'objects, Maps of text, JSON',
    },
  ];
}

/**
 * `npm run bench`: every figure with its baseline from the same run. `-- --json` for machines, `-- --quick` for a short one;
 * names of parts for these alone: `-- storage pipeline`, `-- big-queries --flows 100000000`.
 */
import { parseArgs } from 'node:util';
import { formatTable } from '../lib/runtime/table.ts';
import { benchBigQueries } from './big-queries.ts';
import { benchDecode, benchEnrichment, benchLookup } from './hot-path.ts';
import { benchInventory } from './inventory.ts';
import { benchLabels } from './labels.ts';
import { benchPipeline } from './pipeline.ts';
import { benchPolicy } from './policy.ts';
import { type Figure, jsonLine, tableRow } from './report.ts';
import { benchStorage, storageTraffics } from './storage.ts';
import { benchSustained } from './sustained.ts';
import { loadWorld, makeTraffic, type Traffic } from './traffic.ts';

const { values: options, positionals } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    quick: { type: 'boolean', default: false },
    flows: { type: 'string' },
  },
  allowPositionals: true,
});
const figures: Figure[] = [];
const report = (more: readonly Figure[]): void => {
  figures.push(...more);
  if (options.json) for (const figure of more) process.stdout.write(`${jsonLine(figure)}\n`);
};
const say = (text: string): void => {
  if (!options.json) process.stderr.write(`${text}\n`);
};

/** Two hours of a day, well before midnight and a day ago: one partition a day, compressed as what is old. */
const startMs = Math.floor(Date.now() / 86_400_000) * 86_400_000 - 36 * 3_600_000;

const flowCount = Number(options.flows ?? (options.quick ? 300_000 : 6_000_000));
let made: Traffic | undefined;
/** The traffic that parts share. */
function traffic(): Traffic {
  if (made === undefined) {
    say(`generating ${flowCount.toLocaleString('en')} flows of the bank (100,000 workloads) ...`);
    made = makeTraffic({ size: 'bank', flowCount, flowsPerBatch: 500, startMs });
  }
  return made;
}

interface Part {
  readonly says: string;
  readonly run: () => Promise<void>;
  /** Takes long, or much of the disk: only when asked for by name. */
  readonly alone?: true;
}

const parts: Readonly<Record<string, Part>> = {
  decode: { says: 'decoding', run: async () => report(await benchDecode(traffic())) },
  lookup: {
    says: 'looking up',
    run: async () => report(await benchLookup(loadWorld(traffic()).inventory)),
  },
  inventory: {
    says: 'the inventory at up to a million workloads',
    run: async () => report(await benchInventory(options.quick)),
  },
  enrich: { says: 'enriching', run: async () => report(await benchEnrichment(traffic())) },
  policy: { says: 'judging by up to 10,000 rules', run: async () => report(await benchPolicy(traffic())) },
  pipeline: {
    says: 'the whole way, with ClickHouse and both buses',
    run: () => benchPipeline(traffic(), report),
  },
  labels: { says: 'from a changed label to a query', run: async () => report(await benchLabels(say)) },
  storage: {
    says: 'bytes on disk',
    run: () => benchStorage(storageTraffics(flowCount, startMs), say, report),
  },
  sustained: {
    says: 'from ingest to a query under a steady load',
    run: async () => {
      const load = options.quick
        ? { flowsPerSecond: 20_000, seconds: 10 }
        : { flowsPerSecond: 100_000, seconds: 60 };
      for (const bus of ['embedded', 'kafka'] as const)
        for (const inventory of ['word', 'cluster'] as const)
          report(await benchSustained({ ...load, bus, inventory }, say));
    },
  },
  'big-queries': {
    says: 'questions to rollups and to flows',
    alone: true,
    run: () => benchBigQueries(Number(options.flows ?? 2_000_000), say, report),
  },
};

const asked =
  positionals.length > 0 ? positionals : Object.keys(parts).filter((name) => parts[name]?.alone !== true);
const unknown = asked.filter((name) => parts[name] === undefined);
if (unknown.length > 0) {
  process.stderr.write(
    `no bench ${unknown.join(', ')}; there are ${Object.keys(parts).join(', ')}, or none for all\n`,
  );
  process.exit(2);
}
for (const name of asked) {
  const part = parts[name];
  if (part === undefined) continue;
  say(`${part.says} ...`);
  await part.run();
}

if (!options.json) {
  const lines = formatTable(
    [
      { title: 'WHAT' },
      { title: 'FIGURE', align: 'right' },
      { title: 'BASELINE', align: 'right' },
      { title: 'RATIO', align: 'right' },
      { title: 'AGAINST' },
    ],
    figures.map(tableRow),
  );
  process.stdout.write(`\n${lines.join('\n')}\n\nOne machine holds the load, bus, enricher and store.\n`);
}

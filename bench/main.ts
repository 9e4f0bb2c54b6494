/**
 * `npm run bench`: every figure with its baseline from the same run. `-- --json` for machines, `-- --quick` for a short one;
 * `-- storage` and `-- big-queries --flows N` for these parts alone.
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
import { loadWorld, makeTraffic } from './traffic.ts';

const { values: options, positionals } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    quick: { type: 'boolean', default: false },
    flows: { type: 'string' },
  },
  allowPositionals: true,
});
/** Parts that can be asked for alone; without a name all run, but the large queries, which take long. */
const [part = 'all'] = positionals;
if (!['all', 'storage', 'big-queries'].includes(part)) {
  process.stderr.write(`no bench ${part}: storage or big-queries, or none for all\n`);
  process.exit(2);
}

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

async function benchAll(): Promise<void> {
  const flowCount = options.quick ? 300_000 : 6_000_000;
  say(`generating ${flowCount.toLocaleString('en')} flows of the bank (100,000 workloads) ...`);
  const traffic = makeTraffic({ size: 'bank', flowCount, flowsPerBatch: 500, startMs });

  say('decoding ...');
  report(await benchDecode(traffic));
  say('looking up ...');
  report(await benchLookup(loadWorld(traffic).inventory));
  say('the inventory at up to a million workloads ...');
  report(await benchInventory(options.quick));
  say('enriching ...');
  report(await benchEnrichment(traffic));
  say('judging by up to 10,000 rules ...');
  report(await benchPolicy(traffic));
  say('the whole way, with ClickHouse and both buses ...');
  await benchPipeline(traffic, report);
  say('from a changed label to a query ...');
  report(await benchLabels(say));
}

async function benchDisk(): Promise<void> {
  const count = Number(options.flows ?? (options.quick ? 300_000 : 6_000_000));
  await benchStorage(storageTraffics(count, startMs), say, report);
}

if (part === 'all') await benchAll();
if (part !== 'big-queries') await benchDisk();
if (part === 'big-queries') await benchBigQueries(Number(options.flows ?? 2_000_000), say, report);

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
  process.stdout.write(
    `\n${lines.join('\n')}\n\nNot measured: agents, HTTP at ingest, queries; one machine holds bus, enricher and store.\n`,
  );
}

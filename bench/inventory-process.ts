/**
 * One task of the inventory's benchmark, in a process of its own, so that its memory is its own:
 * `node inventory-process.ts <task> <workloads> [directory]`; prints one JSON object.
 */
import { once } from 'node:events';
import { createReadStream, createWriteStream } from 'node:fs';
import { join } from 'node:path';
import { finished } from 'node:stream/promises';
import { Registry } from 'prom-client';
import { Default, Parse } from 'typebox/value';
import { type EstateSize, makeEstate } from '../estate/index.ts';
import type { Bus } from '../lib/bus/bus.ts';
import { BusConfig } from '../lib/bus/config.ts';
import { openBus } from '../lib/bus/open.ts';
import { topicSpecs } from '../lib/bus/topics.ts';
import { type InventoryEvent, inventoryKey } from '../lib/inventory/events.ts';
import { publishPolicy } from '../lib/policy/publish.ts';
import { topics } from '../schemas/topics.ts';
import { makeMetrics } from '../services/enrich/metrics.ts';
import { openWorld, type World } from '../services/enrich/world.ts';
import { makeEnrichment, quiet } from './hot-path.ts';
import { benchLookups } from './inventory-lookups.ts';
import { benchUpdates } from './inventory-updates.ts';
import { medianSeconds, mustEqual } from './report.ts';
import type { Traffic } from './traffic.ts';

/** An estate like the bank of the case study, with more clusters of its kind. */
function estateOf(workloads: number): EstateSize {
  const machines = Math.min(Math.round(workloads * 0.1), 10_000);
  const clusterCount = Math.max(1, Math.ceil((workloads - machines) / 20_000));
  const pods = Math.round((workloads - machines) / (clusterCount * 1.01));
  const namespaces = Math.max(6, Math.round(pods / 36));
  return {
    clusters: Array.from({ length: clusterCount }, (_, i) => ({
      name: `cluster-${i}`,
      nodes: Math.max(3, Math.round(pods / 100)),
      pods,
      namespaces,
      firstApp: (i * 50) % 500,
    })),
    vms: Math.round(machines * 0.8),
    hosts: Math.round(machines * 0.2),
  };
}

async function openTestBus(dataDir: string): Promise<Bus> {
  const config = Parse(BusConfig, Default(BusConfig, { kind: 'embedded' }));
  const bus = await openBus(config, { dataDir, log: quiet, clientId: 'bench' });
  await bus.ensureTopics(topicSpecs(config));
  return bus;
}

const messagesFile = 'messages.bin';

/** Writes the inventory of an estate to a bus, and its traffic to a file. */
async function fill(workloads: number, dir: string, flowCount: number): Promise<object> {
  const startMs = Math.floor(Date.now() / 86_400_000) * 86_400_000 - 12 * 3_600_000;
  const estate = makeEstate({ seed: 'bench', size: estateOf(workloads), startMs });
  const bus = await openTestBus(dir);
  let eventCount = 0;
  let byteCount = 0;
  let waiting: { key: string; value: Buffer; headers: { source: string } }[] = [];
  const flush = async (): Promise<void> => {
    await bus.append(topics.inventory, waiting);
    waiting = [];
  };
  const put = async (event: InventoryEvent): Promise<void> => {
    const value = Buffer.from(JSON.stringify(event));
    eventCount++;
    byteCount += value.length;
    waiting.push({ key: inventoryKey(event), value, headers: { source: 'bench' } });
    if (waiting.length >= 2000) await flush();
  };
  for (const event of estate.inventory()) await put(event);
  await flush();
  await publishPolicy(bus, estate.policy(), 'bench');
  await bus.close();
  const file = createWriteStream(join(dir, messagesFile));
  for (const { agentId, message, flowCount: flows } of estate.flowBatches({
    count: flowCount,
    flowsPerBatch: 500,
  })) {
    const id = Buffer.from(agentId);
    const head = Buffer.alloc(12);
    head.writeUInt32LE(flows, 0);
    head.writeUInt32LE(id.length, 4);
    head.writeUInt32LE(message.length, 8);
    if (!file.write(Buffer.concat([head, id, message]))) await once(file, 'drain');
  }
  file.end();
  await finished(file);
  return { eventCount, byteCount };
}

async function readMessages(dir: string): Promise<Traffic['messages']> {
  const chunks: Buffer[] = [];
  for await (const chunk of createReadStream(join(dir, messagesFile))) chunks.push(chunk);
  const all = Buffer.concat(chunks);
  const messages: Traffic['messages'][number][] = [];
  for (let at = 0; at < all.length; ) {
    const idEnd = at + 12 + all.readUInt32LE(at + 4);
    const end = idEnd + all.readUInt32LE(at + 8);
    messages.push({
      flowCount: all.readUInt32LE(at),
      agentId: all.toString('utf8', at + 12, idEnd),
      message: all.subarray(idEnd, end),
    });
    at = end;
  }
  return messages;
}

/** Reads the topics as an enricher does when it starts. */
async function withWorld<T>(
  dir: string,
  work: (world: World, seconds: number) => T | Promise<T>,
): Promise<T> {
  const bus = await openTestBus(dir);
  try {
    const begin = performance.now();
    const world = await openWorld({
      bus,
      maxIntervalsPerAddress: 64,
      log: quiet,
      metrics: makeMetrics(new Registry()),
    });
    try {
      return await work(world, (performance.now() - begin) / 1000);
    } finally {
      await world.close();
    }
  } finally {
    await bus.close();
  }
}

function start(dir: string): Promise<object> {
  return withWorld(dir, ({ inventory }, seconds) => ({
    seconds,
    peakBytes: process.resourceUsage().maxRSS * 1024,
    ownerCount: inventory.ownerCount,
    addressCount: inventory.index.addressCount,
  }));
}

async function rate(dir: string): Promise<object> {
  const messages = await readMessages(dir);
  const flowCount = messages.reduce((sum, message) => sum + message.flowCount, 0);
  return withWorld(dir, async ({ inventory, policies }) => {
    const traffic: Traffic = { events: [], policy: policies.newest, messages, flowCount, startMs: 0 };
    let rows = 0;
    const enrich = makeEnrichment(inventory, policies);
    const seconds = await medianSeconds(5, () => {
      rows = 0;
      enrich(traffic, ({ rowCount }) => {
        rows += rowCount;
      });
    });
    mustEqual('flows enriched', rows, flowCount);
    return {
      flowsPerSecond: flowCount / seconds,
      flowCount,
      identityCount: inventory.identities.list.length,
    };
  });
}

async function run(task: string, workloads: number, dir: string, flowCount: number): Promise<object> {
  switch (task) {
    case 'lookups':
      return benchLookups(workloads);
    case 'updates':
      return benchUpdates(workloads);
    case 'fill':
      return fill(workloads, dir, flowCount);
    case 'start':
      return start(dir);
    case 'rate':
      return rate(dir);
    default:
      throw new Error(`no task ${task}`);
  }
}

const [task = '', workloads = '0', dir = '', flowCount = '0'] = process.argv.slice(2);
process.stdout.write(`${JSON.stringify(await run(task, Number(workloads), dir, Number(flowCount)))}\n`);

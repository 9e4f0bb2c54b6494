import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { workloadId } from '../lib/inventory/ids.ts';
import { formatAddress, toMapped } from '../lib/net/address.ts';
import { encodeFlowBatch } from '../lib/wire/flow-batch.ts';
import { type Estate, type MakeEstateOptions, makeEstate, type Step, type Truth } from './index.ts';
import { NaiveInventory, naiveVerdict } from './naive.ts';

const startMs = Date.UTC(2026, 0, 7, 10, 0, 0);

function tiny(more: Partial<MakeEstateOptions> = {}): Estate {
  return makeEstate({ seed: 7, size: 'tiny', startMs, flowsPerSecond: 400, ...more });
}

const hard = { churnPerMinute: 4, reuseDelayMs: 400, hintShare: 0.2 };

function fingerprint(estate: Estate, toMs: number): string {
  const hash = createHash('sha256');
  for (const event of estate.inventory()) hash.update(JSON.stringify(event));
  hash.update(JSON.stringify(estate.policy()));
  const { inventoryEvents, batches, truth } = estate.step(toMs);
  hash.update(JSON.stringify(inventoryEvents));
  for (const batch of batches) hash.update(encodeFlowBatch(batch));
  hash.update(JSON.stringify(truth, (_, value) => (typeof value === 'bigint' ? String(value) : value)));
  return hash.digest('hex');
}

test('the same seed gives the same bytes, another seed others', () => {
  const of = (seed: number): string => fingerprint(tiny({ seed, ...hard }), startMs + 30_000);
  assert.equal(of(1), of(1));
  assert.notEqual(of(1), of(2));
});

test('how often step is called changes nothing', () => {
  const once = tiny(hard).step(startMs + 20_000);
  const often = tiny(hard);
  const flows: Truth[] = [];
  for (let toMs = startMs; toMs <= startMs + 20_000; toMs += 330)
    flows.push(...often.step(toMs).truth.flat());
  flows.push(...often.step(startMs + 20_000).truth.flat());
  assert.deepEqual(flows, once.truth.flat());
});

test('every flow is named and judged by a naive reader of inventory and policy exactly as the truth says', () => {
  const estate = tiny({ seed: 3, ...hard });
  const inventory = new NaiveInventory();
  for (const event of estate.inventory()) inventory.add(event);
  const policy = estate.policy();
  const step = estate.step(startMs + 90_000);
  for (const { event } of step.inventoryEvents) inventory.add(event);
  const workloads = idsByUid(estate, step);
  let flowCount = 0;
  const kinds = new Set<string>();
  const verdicts = new Set<string>();
  step.batches.forEach((batch, i) => {
    batch.flows.forEach((flow, j) => {
      const truth = step.truth[i]?.[j];
      assert.ok(truth);
      flowCount++;
      const timeMs = batch.observedFromMs + flow.startMs;
      const srcIp = formatAddress(toMapped(flow.sourceAddress));
      const dstIp = formatAddress(toMapped(flow.destinationAddress));
      const where = `${batch.agentId} ${srcIp}:${flow.sourcePort} > ${dstIp}:${flow.destinationPort}`;
      assert.equal(truth.agent, batch.agentId);
      assert.equal(formatAddress(toMapped(flow.sourceAddress)), truth.srcIp);
      assert.equal(truth.dstIp, dstIp);
      assert.deepEqual(
        [truth.srcPort, truth.dstPort, truth.protocol, truth.side, truth.startSecond],
        [flow.sourcePort, flow.destinationPort, flow.protocol, flow.reporter, Math.floor(timeMs / 1000)],
      );
      const source = inventory.name(batch.network, srcIp, timeMs, policy.profiles);
      const destination = inventory.name(batch.network, dstIp, timeMs, policy.profiles);
      const { srcKind, srcCluster, srcNamespace, srcName, srcLabels } = truth;
      assert.deepEqual(
        { kind: srcKind, cluster: srcCluster, namespace: srcNamespace, name: srcName, labels: srcLabels },
        withoutUid(source),
        where,
      );
      const { dstKind, dstCluster, dstNamespace, dstName, dstLabels } = truth;
      assert.deepEqual(
        { kind: dstKind, cluster: dstCluster, namespace: dstNamespace, name: dstName, labels: dstLabels },
        withoutUid(destination),
        where,
      );
      assert.equal(truth.srcWorkload, workloads.get(source.uid) ?? 0n, where);
      assert.equal(truth.dstWorkload, workloads.get(destination.uid) ?? 0n, where);
      const { matchCount, ...verdict } = naiveVerdict(
        policy,
        timeMs,
        { ...source, ip: srcIp },
        { ...destination, ip: dstIp },
        flow.destinationPort,
        flow.protocol,
      );
      const { reason, ruleset, rule } = truth;
      assert.deepEqual({ verdict: truth.verdict, reason, ruleset, rule }, verdict, where);
      assert.ok(matchCount <= 1, `${where}: ${matchCount} rules decide`);
      kinds.add(source.kind).add(destination.kind);
      verdicts.add(truth.verdict === 'unexplained' ? truth.reason : truth.rule);
    });
  });
  assert.ok(flowCount > 20_000, `${flowCount} flows`);
  assert.deepEqual([...kinds].sort(), ['host', 'node', 'pod', 'range', 'service', 'unknown', 'vm']);
  for (const name of [
    'no-rule',
    'port-not-covered',
    'outside-scope',
    'unknown-source',
    'unknown-destination',
  ])
    assert.ok(verdicts.has(name), name);
  for (const name of ['dev-to-prod-data', 'masqueraded', 'cluster-dns', 'proxy-out', 'to-database'])
    assert.ok(verdicts.has(name), name);
});

function withoutUid<T extends { uid: string }>({ uid: _, ...rest }: T): Omit<T, 'uid'> {
  return rest;
}

function idsByUid(estate: Estate, step: Step): Map<string, bigint> {
  const ids = new Map<string, bigint>();
  for (const event of [...estate.inventory(), ...step.inventoryEvents.map((one) => one.event)])
    if (event.type === 'workload') ids.set(event.uid, workloadId(event.cluster, event.kind, event.uid));
  return ids;
}

/**
 * The plain way to do what the enricher does, as most pipelines do it: a row object per flow from avsc, a Map from address
 * text to the owner, verdicts memoised in a Map by text, rows as JSON.
 */

import { ruleId } from '../lib/inventory/ids.ts';
import type { Inventory } from '../lib/inventory/inventory.ts';
import { formatAddress, parseAddress, toMapped } from '../lib/net/address.ts';
import { type PolicyEngine, reasonCodeOf, ruleOf, verdictCodeOf } from '../lib/policy/engine.ts';
import { type FlowBatch, flowBatchType, frameLength } from '../lib/wire/flow-batch.ts';
import { reasons, verdicts } from '../schemas/closed-lists.ts';

export function decodePlainly(message: Buffer): FlowBatch {
  return flowBatchType.fromBuffer(message.subarray(frameLength));
}

export interface PlainOwner {
  readonly workload: string;
  readonly identity: number;
  readonly kind: string;
}

/** Address text, with its network, to the owner of now. */
export function plainOwners(inventory: Inventory): Map<string, PlainOwner> {
  const owners = new Map<string, PlainOwner>();
  for (const owner of inventory.owners) {
    if (owner === undefined || (owner.event.type === 'workload' && owner.event.hostNetwork)) continue;
    for (const { ip, network, untilMs } of owner.event.addresses) {
      if (untilMs !== undefined) continue;
      owners.set(`${network}|${formatAddress(parseAddress(ip)!)}`, {
        workload: String(owner.id),
        identity: owner.identity,
        kind: owner.event.type === 'workload' ? owner.event.kind : owner.event.type,
      });
    }
  }
  return owners;
}

export interface PlainWorld {
  readonly inventory: Inventory;
  readonly engine: PolicyEngine;
  readonly owners: ReadonlyMap<string, PlainOwner>;
  readonly ranges: Map<string, { identity: number; closed: boolean }>;
  readonly verdicts: Map<string, number>;
}

const provenanceOf: Readonly<Record<string, string>> = {
  pod: 'pod',
  node: 'node',
  vm: 'host',
  host: 'host',
  service: 'service',
};

interface PlainEnd {
  readonly ip: string;
  readonly workload: string;
  readonly identity: number;
  readonly provenance: string;
  readonly certainty: string;
  readonly blockSet: number;
}

function nameEnd(world: PlainWorld, network: string, address: Uint8Array): PlainEnd {
  const bytes = toMapped(address);
  const ip = formatAddress(bytes);
  const number = world.inventory.network(network);
  const key = `${network}|${ip}`;
  let range = world.ranges.get(key);
  if (range === undefined) {
    range = world.inventory.rangeOf(number, bytes, 0);
    world.ranges.set(key, range);
  }
  const cluster = world.inventory.view(number).parent >= 0;
  const owner =
    world.owners.get(key) ?? (cluster && !range.closed ? world.owners.get(`default|${ip}`) : undefined);
  const blockSet = world.engine.blockSet(bytes, 0);
  if (owner !== undefined) {
    const provenance = provenanceOf[owner.kind] ?? 'none';
    return {
      ip,
      workload: owner.workload,
      identity: owner.identity,
      provenance,
      certainty: 'exact',
      blockSet,
    };
  }
  const known = !range.closed && range.identity !== 0;
  const identity = range.closed ? 0 : range.identity;
  return {
    ip,
    workload: '0',
    identity,
    provenance: known ? 'range' : 'none',
    certainty: known ? 'exact' : 'none',
    blockSet,
  };
}

/** Rows for JSONEachRow, one object each. */
export function enrichPlainly(world: PlainWorld, batch: FlowBatch): Record<string, unknown>[] {
  const { engine, inventory } = world;
  return batch.flows.map((flow) => {
    const src = nameEnd(world, batch.network, flow.sourceAddress);
    const dst = nameEnd(world, batch.network, flow.destinationAddress);
    const key = `${src.identity}|${src.blockSet}|${dst.identity}|${dst.blockSet}|${flow.destinationPort}|${flow.protocol}`;
    let packed = world.verdicts.get(key);
    if (packed === undefined) {
      const ends = inventory.identities.list;
      packed = engine.evaluate(
        src.identity,
        src.blockSet,
        ends[src.identity]!,
        dst.identity,
        dst.blockSet,
        ends[dst.identity]!,
        flow.destinationPort,
        flow.protocol,
      );
      world.verdicts.set(key, packed);
    }
    const rule = engine.rules[ruleOf(packed)];
    return {
      time: Math.floor((batch.observedFromMs + flow.startMs) / 1000),
      duration_ms: flow.durationMs,
      src_ip: src.ip.includes(':') ? src.ip : `::ffff:${src.ip}`,
      src_port: flow.sourcePort,
      dst_ip: dst.ip.includes(':') ? dst.ip : `::ffff:${dst.ip}`,
      dst_port: flow.destinationPort,
      protocol: flow.protocol,
      original_dst_ip:
        flow.originalDestinationAddress.length === 0
          ? '::'
          : formatAddress(toMapped(flow.originalDestinationAddress)).replace(/^(?=\d+\.)/, '::ffff:'),
      original_dst_port: flow.originalDestinationPort,
      src_workload: src.workload,
      dst_workload: dst.workload,
      src_identity: String(inventory.identities.list[src.identity]!.id),
      dst_identity: String(inventory.identities.list[dst.identity]!.id),
      src_provenance: src.provenance,
      src_certainty: src.certainty,
      dst_provenance: dst.provenance,
      dst_certainty: dst.certainty,
      side: flow.reporter,
      state: flow.state,
      action: flow.action,
      action_reason: batch.strings[flow.actionReason],
      flags: flow.flags,
      verdict: verdicts[verdictCodeOf(packed)],
      reason: reasons[reasonCodeOf(packed)],
      rule: rule === undefined ? '0' : String(ruleId(rule.ruleset.name, rule.rule.name)),
      policy: engine.version,
      bytes_forward: flow.bytesForward,
      bytes_reverse: flow.bytesReverse,
      packets_forward: flow.packetsForward,
      packets_reverse: flow.packetsReverse,
      connections: flow.connectionCount,
      dns_name: batch.strings[flow.dnsName],
      process: batch.strings[flow.processName],
      agent: batch.agentId,
    };
  });
}

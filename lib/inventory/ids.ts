/**
 * Ids without a coordinator: 64-bit hashes of canonical content, the same in every process and for ever.
 * 0 stands for 'none' in columns and is never the hash of anything.
 */
import { hash } from 'node:crypto';

/** The first 8 bytes of SHA-256 of the text, as an unsigned little-endian integer, never 0. */
export function hash64(text: string): bigint {
  // One character a byte: the quickest way out of the hash.
  const bytes = hash('sha256', text, 'binary');
  let low = 0;
  let high = 0;
  for (let i = 3; i >= 0; i--) {
    low = (low << 8) | bytes.charCodeAt(i);
    high = (high << 8) | bytes.charCodeAt(i + 4);
  }
  const value = (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0);
  return value === 0n ? 1n : value;
}

/** Id of a workload (`workloads.id`). `cluster` is empty for VMs and bare metal. */
export function workloadId(cluster: string, kind: string, uid: string): bigint {
  return hash64(JSON.stringify(['workload', cluster, kind, uid]));
}

/** Id of a rule (`rules.id`): stable across versions while ruleset and name stay. */
export function ruleId(ruleset: string, rule: string): bigint {
  return hash64(JSON.stringify(['rule', ruleset, rule]));
}

/** What an identity is made of; labels in any order. */
export interface IdentityContent {
  readonly kind: string;
  readonly cluster: string;
  readonly namespace: string;
  /** Name of a range or service; empty for workloads, which share an identity. */
  readonly name: string;
  readonly zone: 'inside' | 'outside';
  readonly labels: Readonly<Record<string, string>>;
}

/** Id of an identity (`identities.id`): a hash of its canonical content. */
export function identityId(content: IdentityContent): bigint {
  const labels = Object.entries(content.labels).sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
  return hash64(
    JSON.stringify([
      'identity',
      content.kind,
      content.cluster,
      content.namespace,
      content.name,
      content.zone,
      labels,
    ]),
  );
}

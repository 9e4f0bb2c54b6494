/** Identities between the store and memory. */

import type { Identity } from '../inventory/identities.ts';
import type { IdentityContent } from '../inventory/ids.ts';
import type { Store } from '../store/store.ts';

/** Ids in one question at most. */
const chunkSize = 5000;

interface StoredIdentity {
  readonly id: string;
  readonly kind: string;
  readonly cluster: string;
  readonly namespace: string;
  readonly name: string;
  readonly zone: string;
  readonly label_keys: readonly string[];
  readonly label_values: readonly string[];
}

/** What stored identities are made of. Those that the store does not have are missing. */
export async function readIdentities(
  store: Store,
  ids: readonly bigint[],
): Promise<Map<bigint, IdentityContent>> {
  const found = new Map<bigint, IdentityContent>();
  for (let from = 0; from < ids.length; from += chunkSize) {
    const list = ids.slice(from, from + chunkSize).join(', ');
    const rows = await store.query<StoredIdentity>(
      `SELECT id, kind, cluster, namespace, name, zone, label_keys, label_values FROM identities FINAL
       WHERE id IN (${list})`,
    );
    for (const { id, zone, label_keys, label_values, ...rest } of rows) {
      const labels = Object.fromEntries(label_keys.map((key, i) => [key, label_values[i] ?? '']));
      found.set(BigInt(id), { ...rest, zone: zone === 'outside' ? 'outside' : 'inside', labels });
    }
  }
  return found;
}

/** Writes identities; ids are hashes of the content, so any number of times. */
export async function writeIdentities(store: Store, identities: readonly Identity[]): Promise<void> {
  for (let from = 0; from < identities.length; from += chunkSize) {
    await store.insertRows(
      'identities',
      identities.slice(from, from + chunkSize).map(({ id, kind, cluster, namespace, name, zone, labels }) => {
        const keys = Object.keys(labels).sort();
        return {
          id,
          kind,
          cluster,
          namespace,
          name,
          zone,
          app: labels.app ?? '',
          role: labels.role ?? '',
          env: labels.env ?? '',
          loc: labels.loc ?? '',
          label_keys: keys,
          label_values: keys.map((key) => labels[key] ?? ''),
        };
      }),
    );
  }
}

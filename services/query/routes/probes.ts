/** GET /healthz, /readyz and /metrics on the port of the API. */
import type { FastifyInstance } from 'fastify';
import type { Registry } from 'prom-client';
import type { Store } from '../../../lib/store/store.ts';

/** Without these nothing can be answered. */
export const neededTables = [
  'flows',
  'batches',
  'edges_1m',
  'edges_1h',
  'edges_seen',
  'identities',
  'workloads',
  'rules',
  'alerts',
] as const;

const tablesSql = `SELECT name FROM system.tables WHERE database = currentDatabase() AND name IN (${neededTables.map((name) => `'${name}'`).join(', ')})`;

/** `true`, or why questions can't be answered yet. */
export async function storeState(store: Store): Promise<true | string> {
  if (!(await store.ping())) return 'ClickHouse does not answer';
  try {
    const rows = await store.query<{ name: string }>(tablesSql);
    const found = new Set(rows.map((row) => row.name));
    const missing = neededTables.filter((name) => !found.has(name));
    return missing.length === 0
      ? true
      : `tables are missing (${missing.join(', ')}): run \`eastwest migrate\``;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

export function probeRoutes(
  app: FastifyInstance,
  options: { readonly store: Store; readonly registry: Registry },
): void {
  const { store, registry } = options;
  const schema = { hide: true };
  app.get('/healthz', { schema }, async () => ({ status: 'ok' }));
  app.get('/readyz', { schema }, async (_request, reply) => {
    const state = await storeState(store);
    return reply.code(state === true ? 200 : 503).send({ ready: state === true, parts: { store: state } });
  });
  app.get('/metrics', { schema }, async (_request, reply) =>
    reply.type(registry.contentType).send(await registry.metrics()),
  );
}

/** Builds the HTTP application: routes, schemas, OpenAPI, errors. Listens nowhere. */
import { fileURLToPath } from 'node:url';
import fastifyStatic from '@fastify/static';
import swagger from '@fastify/swagger';
import fastify, { type FastifyBaseLogger, type FastifyInstance, LogController } from 'fastify';
import type { Logger } from 'pino';
import type { Registry } from 'prom-client';
import type { Store } from '../../lib/store/store.ts';
import { makeCompleteness } from './completeness.ts';
import type { QueryConfig } from './config.ts';
import { makeAsk, type RouteContext } from './context.ts';
import { handleErrors } from './errors.ts';
import { makeInventoryQuestions } from './inventory-questions.ts';
import { type QueryMetrics, queryMetrics } from './metrics.ts';
import type { SqlServer } from './people/sql.ts';
import type { Policies } from './policies.ts';
import { Problem } from './problem.ts';
import type { PutWriter } from './put/writer.ts';
import { alertRoutes } from './routes/alerts.ts';
import { coverageRoutes } from './routes/coverage.ts';
import { draftRoutes } from './routes/drafts.ts';
import { edgeRoutes } from './routes/edges.ts';
import { explainRoutes } from './routes/explain.ts';
import { firewallRoutes } from './routes/firewall.ts';
import { inventoryRoute } from './routes/inventory.ts';
import { labelRoutes, type WithBus } from './routes/labels.ts';
import { ledgerRoutes } from './routes/ledger.ts';
import { mapRoutes } from './routes/map.ts';
import { networkPolicyRoutes } from './routes/networkpolicy.ts';
import { oneSidedRoutes } from './routes/one-sided.ts';
import { policyRoutes } from './routes/policy.ts';
import { probeRoutes } from './routes/probes.ts';
import { putWorkloadsRoute } from './routes/put-workloads.ts';
import { ruleRoutes } from './routes/rules.ts';
import { sqlRoutes } from './routes/sql.ts';
import { suggestionRoutes } from './routes/suggestions.ts';
import { workloadRoutes } from './routes/workloads.ts';

export interface QueryAppOptions {
  readonly config: QueryConfig;
  /** Answers all but the SQL of people. */
  readonly store: Store;
  /** The same server as the user that may only read. */
  readonly sqlServer: SqlServer;
  /** `store.retention.minuteDays`. */
  readonly minuteDays: number;
  readonly registry: Registry;
  readonly log: Logger;
  /** Takes what is put; absent where nothing may be. */
  readonly putWriter?: PutWriter;
  /** Reads inventory and policy where they are published; absent where there is no bus. */
  readonly withBus?: WithBus;
  /** Which policy was in force when; absent where there is no bus. */
  readonly policies?: Policies;
  readonly nowMs?: () => number;
}

/** The page: plain files, next to no build step. */
const webFolder = fileURLToPath(new URL('../../web/', import.meta.url));

const openApi = {
  openapi: '3.1.0',
  info: {
    title: 'Eastwest',
    description:
      'Who talks to whom, and which of those connections can nobody explain? Errors are RFC 9457 problem documents.',
    version: '1',
  },
} as const;

function countRequests(app: FastifyInstance, metrics: QueryMetrics): void {
  app.addHook('onResponse', async (request, reply) => {
    metrics.requestSeconds.observe(
      { route: request.routeOptions.url ?? 'none', method: request.method, status: String(reply.statusCode) },
      reply.elapsedTime / 1000,
    );
  });
}

function allowOrigins(app: FastifyInstance, origins: readonly string[]): void {
  if (origins.length === 0) return;
  app.addHook('onRequest', async (request, reply) => {
    const { origin } = request.headers;
    if (origin === undefined || !origins.includes(origin)) return;
    reply.header('access-control-allow-origin', origin).header('vary', 'origin');
    if (request.method === 'OPTIONS') {
      await reply
        .header('access-control-allow-methods', 'GET, POST')
        .header('access-control-allow-headers', 'content-type')
        .code(204)
        .send();
    }
  });
}

/** The page needs nothing from elsewhere, and nobody may frame it. */
const contentSecurityPolicy =
  "default-src 'self'; img-src 'self' data:; style-src 'self'; script-src 'self'; frame-ancestors 'none'; base-uri 'none'";

export async function buildQueryApp(options: QueryAppOptions): Promise<FastifyInstance> {
  const { config, store, registry } = options;
  const nowMs = options.nowMs ?? Date.now;
  const metrics = queryMetrics(registry);
  const loggerInstance: FastifyBaseLogger = options.log;
  const app = fastify({
    loggerInstance,
    // Requests are counted; the page alone asks every two seconds.
    logController: new LogController({ disableRequestLogging: true }),
    forceCloseConnections: true,
    // A misspelt parameter is an error, not something to leave out in silence.
    ajv: { customOptions: { removeAdditional: false, coerceTypes: true, allowMatchingProperties: true } },
  });
  // Schemas of answers document them and are held by tests; serializing by them would drop what they miss.
  app.setSerializerCompiler(() => (value) => JSON.stringify(value));
  handleErrors(app);
  countRequests(app, metrics);
  allowOrigins(app, config.corsOrigins);
  app.addSchema(Problem);
  await app.register(swagger, { openapi: openApi });

  const base = {
    config,
    kept: { minuteDays: options.minuteDays },
    ledger: { silentAfterS: config.silentAfterSeconds, lookbackS: config.ledgerLookbackHours * 3600 },
    sourceSilentAfterMs: config.sourceSilentAfterSeconds * 1000,
    ask: makeAsk(store, config.maxSeconds),
    clock: () => ({ nowMs: nowMs(), defaultSince: config.defaultSince }),
  };
  const context: RouteContext = { ...base, completeness: makeCompleteness(base, config.completenessCacheMs) };
  edgeRoutes(app, context);
  oneSidedRoutes(app, context);
  coverageRoutes(app, context);
  mapRoutes(app, context);
  draftRoutes(app, context);
  suggestionRoutes(app, context, options.policies);
  ruleRoutes(app, context, options.policies);
  explainRoutes(app, context, options.policies);
  policyRoutes(app, { config, withBus: options.withBus });
  alertRoutes(app, context);
  workloadRoutes(app, context);
  putWorkloadsRoute(app, { config, writer: options.putWriter, nowMs });
  labelRoutes(app, { withBus: options.withBus, maxSeconds: config.maxSeconds });
  const askInventory = makeInventoryQuestions({ withBus: options.withBus, maxSeconds: config.maxSeconds });
  networkPolicyRoutes(app, askInventory);
  inventoryRoute(app, askInventory, config.maxInventoryEntities);
  ledgerRoutes(app, context);
  firewallRoutes(app, context);
  sqlRoutes(app, { server: options.sqlServer, limits: config.sql, metrics, context });
  probeRoutes(app, { store, registry });
  app.get('/openapi.json', { schema: { hide: true } }, async () => app.swagger());
  await app.register(fastifyStatic, {
    root: webFolder,
    setHeaders: (reply) => {
      reply.header('content-security-policy', contentSecurityPolicy);
      reply.header('x-content-type-options', 'nosniff');
      reply.header('cache-control', 'no-cache');
    },
  });
  await app.ready();
  return app;
}

/** The small HTTP server of every process: /healthz, /readyz, /metrics; and clear words when a port is taken. */
import fastify from 'fastify';
import type { Registry } from 'prom-client';
import { OperatorError } from './exit.ts';
import type { ReadinessState } from './readiness.ts';

export interface ListenPurpose {
  readonly host: string;
  readonly port: number;
  /** Who needs the port, for example `query (page and API)`. */
  readonly who: string;
  /** The configuration key that changes it, for example `query.port`. */
  readonly option: string;
}

function codeOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;
}

/** An error of `listen` in words that say what to do; other errors come back as they are. */
export function explainListenError(error: unknown, purpose: ListenPurpose): unknown {
  const { host, port, who, option } = purpose;
  switch (codeOf(error)) {
    case 'EADDRINUSE':
      return new OperatorError(
        `port ${port} on ${host} is in use; ${who} needs it. ` +
          `End the other program, or choose another port: --set ${option}=PORT`,
      );
    case 'EACCES':
      return new OperatorError(
        `port ${port} on ${host} may not be opened by this user; ${who} needs it. ` +
          `Choose a port above 1023: --set ${option}=PORT`,
      );
    case 'EADDRNOTAVAIL':
    case 'ENOTFOUND':
      return new OperatorError(
        `${host} is no address of this machine; ${who} shall listen there. ` +
          `Set the host beside ${option} to an address of this machine`,
      );
    default:
      return error;
  }
}

export interface ProbeServer {
  /** Base URL with the port that was taken. */
  readonly url: string;
  close(): Promise<void>;
}

export interface ProbeOptions {
  readonly host: string;
  /** 0 takes a free port. */
  readonly port: number;
  readonly metrics: Registry;
  readonly readiness: () => ReadinessState;
  readonly name: string;
}

/** Base URL of a listening address, with IPv6 in brackets. */
export function baseUrl(host: string, port: number): string {
  return `http://${host.includes(':') ? `[${host}]` : host}:${port}`;
}

/**
 * Serves the probes of a process.
 * @throws {OperatorError} when the port is taken or not allowed.
 */
export async function serveProbes(options: ProbeOptions): Promise<ProbeServer> {
  const app = fastify({ logger: false, forceCloseConnections: true });
  app.get('/healthz', async () => ({ status: 'ok' }));
  app.get('/readyz', async (_request, reply) => {
    const state = options.readiness();
    return reply.code(state.ready ? 200 : 503).send(state);
  });
  app.get('/metrics', async (_request, reply) =>
    reply.type(options.metrics.contentType).send(await options.metrics.metrics()),
  );
  try {
    await app.listen({ host: options.host, port: options.port });
  } catch (error) {
    await app.close();
    throw explainListenError(error, {
      host: options.host,
      port: options.port,
      who: `${options.name} (health and metrics)`,
      option: 'runtime.http.port',
    });
  }
  const address = app.server.address();
  const port = typeof address === 'object' && address !== null ? address.port : options.port;
  return { url: baseUrl(options.host, port), close: () => app.close() };
}

/** Builds the HTTP side of the door; nothing listens until somebody says so. */

import fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify';
import type { Logger } from 'pino';
import { type Bus, BusFullError, MessageTooLargeError } from '../../lib/bus/bus.ts';
import { asError } from '../../lib/runtime/as-error.ts';
import { failpoint } from '../../lib/runtime/failpoint.ts';
import { topics } from '../../schemas/topics.ts';
import { type Format, formatOf, makeBatchReader } from './batches.ts';
import { drain, encodingOf, readBody } from './body.ts';
import type { CheckedBatch } from './check.ts';
import type { IngestConfig } from './config.ts';
import { DeadLetters } from './dead-letters.ts';
import type { IngestMetrics } from './metrics.ts';
import type { Account, Pressure } from './pressure.ts';
import { problemDocument, type RefusalCause, RefusedError, statusOf } from './refusal.ts';
import type { Grant, TokenBook } from './tokens.ts';

export interface IngestParts {
  readonly config: IngestConfig;
  /** The bus, or why there is none at the moment. */
  readonly bus: () => Bus | string;
  /** Told when an append failed, so that the link to the bus can be looked at. */
  readonly onAppendError: (error: Error) => void;
  readonly pressure: Pressure;
  readonly tokens: () => TokenBook;
  readonly metrics: IngestMetrics;
  readonly log: Logger;
  /** ms since the epoch. */
  readonly now: () => number;
}

/** How much of a refused body is read and thrown away so that the sender can read the answer. */
const maxDrainBytes = 16 * 1024 * 1024;
const maxDrainMs = 2000;

/** Refusals whose body is kept as a dead letter: the sender meant a batch, and it could not be read. */
const deadCauses: readonly RefusalCause[] = [
  'undecodable',
  'unknown-schema',
  'bad-value',
  'time-out-of-range',
];

const openGrant: Grant = { allowsAgent: () => true, networks: [], clusters: [] };
const loopback = /^(127\.|::1$|::ffff:127\.)/;

/** The grant of a request. @throws {RefusedError} */
function authenticate(request: FastifyRequest, tokens: TokenBook, anonymousLoopback: boolean): Grant {
  const header = request.headers.authorization;
  if (tokens.size === 0 && anonymousLoopback) {
    // A proxy on this machine would lend its own address to everybody.
    const forwarded = request.headers.forwarded ?? request.headers['x-forwarded-for'];
    if (loopback.test(request.socket.remoteAddress ?? '') && forwarded === undefined) return openGrant;
    throw new RefusedError(
      'no-token',
      'no tokens are configured (ingest.tokens), so only this machine may send',
    );
  }
  const token = /^Bearer +(\S+) *$/i.exec(header ?? '')?.[1];
  if (token === undefined) throw new RefusedError('no-token', 'send the header Authorization: Bearer TOKEN');
  const grant = tokens.find(token);
  if (grant === null)
    throw new RefusedError('wrong-token', 'the token in the header Authorization is not known');
  return grant;
}

function checkGrant(grant: Grant, { header }: CheckedBatch): void {
  const refuse = (path: string, value: string): RefusedError => {
    const message = `is ${JSON.stringify(value)}, which this token does not allow`;
    return new RefusedError('not-granted', `${path} ${message}`, [{ path, message }]);
  };
  if (!grant.allowsAgent(header.agentId)) throw refuse('agentId', header.agentId);
  if (grant.networks.length > 0 && !grant.networks.includes(header.network))
    throw refuse('network', header.network);
  if (grant.clusters.length > 0 && !grant.clusters.includes(header.cluster))
    throw refuse('cluster', header.cluster);
}

/** Header of every answer: the time at which it was written, ms since the epoch, so that agents can measure their clocks. */
const timeHeader = 'eastwest-time-ms';

/** What the hooks of one request have found out so far. */
interface Visit {
  readonly grant: Grant;
  readonly account: Account;
  readonly format: Format;
}

/** The app with `POST /v1/flows` and `GET /v1/time`. Every answer that refuses is a problem document. */
export function buildIngest(parts: IngestParts): FastifyInstance {
  const { config, metrics, pressure } = parts;
  const app = fastify({
    logger: false,
    forceCloseConnections: 'idle',
    requestTimeout: config.requestTimeoutMs,
    // Bodies are bounded by readBody, as they arrive and after decompression.
    bodyLimit: config.maxBodyBytes,
  });
  const read = makeBatchReader(config);
  const dead = new DeadLetters(config, metrics, parts.log);
  const visits = new WeakMap<FastifyRequest, Visit>();

  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', async (request: FastifyRequest, payload: FastifyRequest['raw']) => {
    const visit = visits.get(request);
    if (visit === undefined) return null;
    const encoding = encodingOf(request.headers['content-encoding']);
    return readBody(payload, encoding, config, visit.account, (bytes) => {
      metrics.receivedBytes.inc(bytes);
    });
  });

  const connect = (): Bus => {
    const bus = parts.bus();
    if (typeof bus === 'string') throw new RefusedError('bus-away', `the bus cannot be reached: ${bus}`);
    return bus;
  };

  const enter = async (request: FastifyRequest): Promise<void> => {
    const grant = authenticate(request, parts.tokens(), config.anonymousLoopback);
    const format = formatOf(request.headers['content-type']);
    encodingOf(request.headers['content-encoding']);
    const length = Number(request.headers['content-length'] ?? 0);
    if (length > config.maxBodyBytes) {
      throw new RefusedError(
        'body-too-large',
        `the body has ${length} bytes, over ${config.maxBodyBytes} (ingest.maxBodyBytes)`,
      );
    }
    connect();
    pressure.checkBus();
    pressure.checkBacklog();
    visits.set(request, { grant, account: pressure.open(), format });
  };

  const append = async (bus: Bus, batches: readonly CheckedBatch[]): Promise<void> => {
    const messages = batches.map(({ message, header }) => ({ key: header.agentId, value: message }));
    const observe = metrics.appendSeconds.startTimer();
    let timer: NodeJS.Timeout | undefined;
    const tooLate = new Promise<never>((_, reject) => {
      timer = setTimeout(
        () => reject(new Error(`no answer within ${config.appendTimeoutMs} ms (ingest.appendTimeoutMs)`)),
        config.appendTimeoutMs,
      );
    });
    // The watch goes on after the sender was told to come again: the bus still owes an answer.
    const appended = pressure.watchAppend(() => bus.append(topics.flows, messages));
    try {
      await Promise.race([appended, tooLate]);
      observe();
      pressure.addToBacklog(messages.length);
    } catch (error) {
      appended.catch(() => undefined);
      if (error instanceof BusFullError) throw new RefusedError('backlog-full', error.message);
      if (error instanceof MessageTooLargeError) throw new RefusedError('message-too-large', error.message);
      const failure = asError(error);
      parts.onAppendError(failure);
      throw new RefusedError('bus-away', `the bus did not take the batch: ${failure.message}`);
    } finally {
      clearTimeout(timer);
    }
  };

  const handle = async (request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> => {
    const visit = visits.get(request);
    if (visit === undefined || !Buffer.isBuffer(request.body)) {
      throw new RefusedError('undecodable', 'the request has no body');
    }
    const bus = connect();
    const batches = readOrBury(request, request.body, visit, bus);
    for (const batch of batches) checkGrant(visit.grant, batch);
    if (batches.length > 0) await append(bus, batches);
    failpoint('ingest.appended');
    const flows = batches.reduce((sum, { flowCount }) => sum + flowCount, 0);
    metrics.batches.inc({ format: visit.format }, batches.length);
    metrics.flows.inc(flows);
    metrics.batchBytes.inc(batches.reduce((sum, { message }) => sum + message.length, 0));
    return reply.code(202).send({ accepted: { batches: batches.length, flows } });
  };

  const readOrBury = (
    request: FastifyRequest,
    body: Buffer,
    visit: Visit,
    bus: Bus,
  ): readonly CheckedBatch[] => {
    const nowMs = parts.now();
    try {
      return read(body, visit.format, nowMs);
    } catch (error) {
      if (config.deadLetters && error instanceof RefusedError && deadCauses.includes(error.refusal)) {
        const origin = {
          contentType: request.headers['content-type'] ?? '',
          remoteAddress: request.socket.remoteAddress ?? '',
        };
        dead.keep(bus, body, error, origin, nowMs);
      }
      throw error;
    }
  };

  const answer = async (
    error: unknown,
    request: FastifyRequest,
    reply: FastifyReply,
  ): Promise<FastifyReply> => {
    const refused = asRefusal(error, parts.log);
    metrics.refused.inc({ cause: refused.refusal });
    const status = statusOf(refused.refusal);
    if (status === 429 || status === 503) reply.header('retry-after', String(config.retryAfterS));
    if (status === 401) reply.header('www-authenticate', 'Bearer realm="eastwest"');
    visits.get(request)?.account.close();
    if (!(await drain(request.raw, maxDrainBytes, maxDrainMs))) reply.header('connection', 'close');
    return reply
      .code(status)
      .type('application/problem+json')
      .send(JSON.stringify(problemDocument(refused)));
  };

  app.setErrorHandler(answer);
  app.setNotFoundHandler((request, reply) =>
    answer(
      new RefusedError(
        'no-route',
        `${request.method} ${request.url} is not known; flows go to POST /v1/flows`,
      ),
      request,
      reply,
    ),
  );
  app.post('/v1/flows', { onRequest: enter }, handle);
  // Asked without a token: it gives away nothing but the time.
  app.get('/v1/time', async (_, reply) =>
    reply.header('cache-control', 'no-store').send({ timeMs: parts.now() }),
  );
  app.addHook('onSend', async (_, reply) => {
    reply.header(timeHeader, String(parts.now()));
  });
  const leave = async (request: FastifyRequest): Promise<void> => visits.get(request)?.account.close();
  app.addHook('onResponse', leave);
  app.addHook('onRequestAbort', leave);
  metrics.inFlightBytes.set(0);
  app.addHook('onResponse', async () => {
    metrics.inFlightBytes.set(pressure.inFlightBytes);
    metrics.backlogBatches.set(pressure.backlogBatches);
  });
  return app;
}

function asRefusal(error: unknown, log: Logger): RefusedError {
  if (error instanceof RefusedError) return error;
  const status = error instanceof Error && 'statusCode' in error ? error.statusCode : undefined;
  if (error instanceof Error && typeof status === 'number' && status >= 400 && status < 500) {
    return new RefusedError('bad-request', error.message);
  }
  log.error({ err: error }, 'a request failed unexpectedly');
  return new RefusedError('failure', 'something unexpected went wrong; the log of ingest says what');
}

/** Posts batches to ingest. */
import { Agent as HttpAgent, request as httpRequest, type IncomingMessage } from 'node:http';
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import { promisify } from 'node:util';
import { zstdCompress } from 'node:zlib';
import type { ClockReading } from './clock.ts';
import type { Sender, SendOutcome } from './deliver.ts';

export interface HttpSenderOptions {
  readonly ingestUrl: string;
  readonly token: string;
  readonly compression: 'zstd' | 'none';
  readonly timeoutMs: number;
  /** Told what each answer says of the time. */
  readonly onTime: (reading: ClockReading) => void;
}

export interface HttpSender extends Sender {
  /** Asks for the time, on the connection of the batches; see `followClock`. */
  askTime(signal: AbortSignal): Promise<'no-answer' | 'first' | 'again'>;
}

/** Header with the time at which ingest wrote its answer, ms since the epoch. */
const timeHeader = 'eastwest-time-ms';

export const batchContentType = 'application/vnd.eastwest.flow-batch+avro';

/** Smaller bodies than this gain nothing from compression, bytes. */
const compressFromBytes = 512;

/** Most of an answer's body that is read, bytes. */
const maxAnswerBytes = 16 * 1024;

const compress = promisify(zstdCompress);

/** `Retry-After` (RFC 9110, 10.2.3) in ms: seconds or a date. */
export function retryAfterMs(header: string | undefined, nowMs: number): number | undefined {
  if (header === undefined) return undefined;
  if (/^\d+$/.test(header.trim())) return Number(header) * 1000;
  const at = Date.parse(header);
  return Number.isNaN(at) ? undefined : Math.max(0, at - nowMs);
}

/** The `detail` (or `title`) of a problem document (RFC 9457), else the beginning of the text. */
export function problemDetail(body: string): string {
  try {
    const problem: unknown = JSON.parse(body);
    if (typeof problem === 'object' && problem !== null) {
      if ('detail' in problem && typeof problem.detail === 'string') return problem.detail;
      if ('title' in problem && typeof problem.title === 'string') return problem.title;
    }
  } catch {
    // Not JSON: shown as it is.
  }
  return body.slice(0, 200);
}

/** What an answer of ingest means for the batch. */
export function outcomeOf(
  status: number,
  retryAfter: string | undefined,
  body: string,
  nowMs: number,
): SendOutcome {
  if (status >= 200 && status < 300) return { kind: 'delivered' };
  const detail = `${status} ${problemDetail(body)}`.trim();
  const afterMs = retryAfterMs(retryAfter, nowMs);
  const asked = afterMs === undefined ? {} : { afterMs };
  if (status === 429 || status === 503) return { kind: 'retry', cause: 'busy', detail, ...asked };
  // People mend these: a token that is missing or changed, a wrong address.
  if (status === 401 || status === 403) return { kind: 'retry', cause: 'unauthorized', detail, ...asked };
  if (status === 404 || status === 405 || status < 400)
    return { kind: 'retry', cause: 'misplaced', detail, ...asked };
  if (status >= 500 || status === 408 || status === 425)
    return { kind: 'retry', cause: 'failed', detail, ...asked };
  return { kind: 'refused', detail };
}

async function readAnswer(answer: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of answer) {
    if (Buffer.isBuffer(chunk) && length < maxAnswerBytes) {
      chunks.push(chunk);
      length += chunk.length;
    }
  }
  return Buffer.concat(chunks).toString('utf8', 0, maxAnswerBytes);
}

interface Question {
  readonly method: 'POST' | 'GET';
  readonly path: string;
  readonly headers: Readonly<Record<string, string | number>>;
  readonly body: Uint8Array | null;
}

interface Answer {
  readonly message: IncomingMessage;
  /** Whether the connection was open before. */
  readonly isReused: boolean;
}

function readingOf(message: IncomingMessage, askedMs: number): ClockReading | null {
  const header = message.headers[timeHeader];
  if (typeof header !== 'string' || !/^\d+(\.\d+)?$/.test(header)) return null;
  return { askedMs, answeredMs: performance.now(), wallMs: Date.now(), serverMs: Number(header) };
}

/** Asks questions, one after the other, over one connection. */
function makeExchange({ ingestUrl, onTime }: HttpSenderOptions) {
  const base = ingestUrl.replace(/\/+$/, '');
  const secure = base.startsWith('https:');
  const settings = { keepAlive: true, maxSockets: 1 };
  const agent = secure ? new HttpsAgent(settings) : new HttpAgent(settings);
  const request = secure ? httpsRequest : httpRequest;

  function exchange(question: Question, signal: AbortSignal): Promise<Answer> {
    const { method, path, headers, body } = question;
    return new Promise((resolve, reject) => {
      const outgoing = request(new URL(base + path), { method, agent, signal, headers });
      // Until it has a connection, a question waits for the one before it.
      let askedMs = performance.now();
      outgoing.on('socket', () => {
        askedMs = performance.now();
      });
      outgoing.on('response', (message) => {
        const reading = readingOf(message, askedMs);
        if (reading !== null) onTime(reading);
        resolve({ message, isReused: outgoing.reusedSocket });
      });
      outgoing.on('error', (error) => {
        // The other end closed the idle connection just as it was used: that says nothing about its health.
        if (outgoing.reusedSocket && !signal.aborted) resolve(exchange(question, signal));
        else reject(error);
      });
      outgoing.end(body ?? undefined);
    });
  }
  return { exchange, close: () => agent.destroy() };
}

export function createHttpSender(options: HttpSenderOptions): HttpSender {
  const { exchange, close } = makeExchange(options);
  const limited = (signal: AbortSignal): AbortSignal =>
    AbortSignal.any([signal, AbortSignal.timeout(options.timeoutMs)]);

  async function post(bytes: Uint8Array, signal: AbortSignal): Promise<SendOutcome> {
    const compressed = options.compression === 'zstd' && bytes.length >= compressFromBytes;
    const body = compressed ? await compress(bytes) : bytes;
    const headers = {
      'content-type': batchContentType,
      'content-length': body.length,
      ...(compressed ? { 'content-encoding': 'zstd' } : {}),
      ...(options.token === '' ? {} : { authorization: `Bearer ${options.token}` }),
    };
    const { message } = await exchange({ method: 'POST', path: '/v1/flows', headers, body }, signal);
    const text = await readAnswer(message);
    return outcomeOf(message.statusCode ?? 0, message.headers['retry-after'], text, Date.now());
  }

  return {
    async send(batch, signal) {
      try {
        return await post(batch.bytes, limited(signal));
      } catch (error) {
        const reason = error instanceof Error ? error.message || error.name : String(error);
        return { kind: 'retry', cause: 'unreachable', detail: `${options.ingestUrl}: ${reason}` };
      }
    },
    async askTime(signal) {
      try {
        const question = { method: 'GET', path: '/v1/time', headers: {}, body: null } as const;
        const { message, isReused } = await exchange(question, limited(signal));
        await readAnswer(message);
        return isReused ? 'again' : 'first';
      } catch {
        // Whether ingest can be reached is for the deliveries to say.
        return 'no-answer';
      }
    },
    close: async () => close(),
  };
}

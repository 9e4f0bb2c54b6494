/** Posts batches to ingest. */
import { Agent as HttpAgent, request as httpRequest, type IncomingMessage } from 'node:http';
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import { promisify } from 'node:util';
import { zstdCompress } from 'node:zlib';
import type { Sender, SendOutcome } from './deliver.ts';

export interface HttpSenderOptions {
  readonly ingestUrl: string;
  readonly token: string;
  readonly compression: 'zstd' | 'none';
  readonly timeoutMs: number;
}

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

export function createHttpSender(options: HttpSenderOptions): Sender {
  const url = new URL(`${options.ingestUrl.replace(/\/+$/, '')}/v1/flows`);
  const secure = url.protocol === 'https:';
  const settings = { keepAlive: true, maxSockets: 1 };
  const agent = secure ? new HttpsAgent(settings) : new HttpAgent(settings);
  const request = secure ? httpsRequest : httpRequest;

  function exchange(body: Uint8Array, compressed: boolean, signal: AbortSignal): Promise<IncomingMessage> {
    return new Promise((resolve, reject) => {
      const outgoing = request(url, {
        method: 'POST',
        agent,
        signal,
        headers: {
          'content-type': batchContentType,
          'content-length': body.length,
          ...(compressed ? { 'content-encoding': 'zstd' } : {}),
          ...(options.token === '' ? {} : { authorization: `Bearer ${options.token}` }),
        },
      });
      outgoing.on('response', resolve);
      outgoing.on('error', (error) => {
        // The other end closed the idle connection just as it was used: that says nothing about its health.
        if (outgoing.reusedSocket && !signal.aborted) resolve(exchange(body, compressed, signal));
        else reject(error);
      });
      outgoing.end(body);
    });
  }

  async function post(bytes: Uint8Array, signal: AbortSignal): Promise<SendOutcome> {
    const compressed = options.compression === 'zstd' && bytes.length >= compressFromBytes;
    const body = compressed ? await compress(bytes) : bytes;
    const answer = await exchange(body, compressed, signal);
    const text = await readAnswer(answer);
    return outcomeOf(answer.statusCode ?? 0, answer.headers['retry-after'], text, Date.now());
  }

  return {
    async send(batch, signal) {
      try {
        return await post(batch.bytes, AbortSignal.any([signal, AbortSignal.timeout(options.timeoutMs)]));
      } catch (error) {
        const reason = error instanceof Error ? error.message || error.name : String(error);
        return { kind: 'retry', cause: 'unreachable', detail: `${url.href}: ${reason}` };
      }
    },
    close: async () => agent.destroy(),
  };
}

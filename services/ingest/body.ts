/** Reads a request body: decompressed while it streams, never holding more than the limits. */
import { once } from 'node:events';
import type { Readable } from 'node:stream';
import { constants, createGunzip, createZstdDecompress, type Gunzip, type ZstdDecompress } from 'node:zlib';

import { zstdWindowLog } from '../../lib/wire/container.ts';
import type { Account } from './pressure.ts';
import { RefusedError } from './refusal.ts';

export interface BodyLimits {
  /** As it arrives, bytes. */
  readonly maxBodyBytes: number;
  /** After decompression, bytes. */
  readonly maxBatchBytes: number;
}

const encodings = ['identity', 'gzip', 'x-gzip', 'zstd'] as const;
export type Encoding = (typeof encodings)[number];

/** The encoding that a Content-Encoding header names. @throws {RefusedError} for one that is not known. */
export function encodingOf(header: string | undefined): Encoding {
  const name = (header ?? '').trim().toLowerCase() || 'identity';
  const known = encodings.find((encoding) => encoding === name);
  if (known === undefined) {
    throw new RefusedError(
      'unsupported-encoding',
      `content-encoding ${name} is not known; use gzip, zstd or identity`,
    );
  }
  return known;
}

function decompressor(encoding: Encoding): Gunzip | ZstdDecompress | null {
  switch (encoding) {
    case 'identity':
      return null;
    case 'gzip':
    case 'x-gzip':
      return createGunzip();
    case 'zstd':
      return createZstdDecompress({ params: { [constants.ZSTD_d_windowLogMax]: zstdWindowLog } });
  }
}

/**
 * The whole body, decompressed; `received` is told about each chunk's size as it arrives.
 * @throws {RefusedError} when it is too large, cannot be decompressed, or too much is in flight.
 */
export async function readBody(
  source: Readable,
  encoding: Encoding,
  limits: BodyLimits,
  account: Account,
  received: (bytes: number) => void,
): Promise<Buffer> {
  const sink = new Sink(limits, account);
  const unpack = decompressor(encoding);
  const end = unpack === null ? null : collect(unpack, sink);
  let arrived = 0;
  try {
    // The stream stays whole when this loop is left: an answer has to go out on its socket.
    for await (const chunk of source.iterator({ destroyOnReturn: false })) {
      arrived += chunk.length;
      received(chunk.length);
      if (arrived > limits.maxBodyBytes)
        throw tooLarge(`over ${limits.maxBodyBytes} bytes (ingest.maxBodyBytes)`);
      if (unpack === null || end === null) sink.add(chunk);
      else if (!unpack.write(chunk)) await Promise.race([once(unpack, 'drain'), end]);
    }
    if (unpack !== null && end !== null) {
      unpack.end();
      await end;
      // Node stops after the first zstd frame: what follows would be lost without a word.
      if (unpack.bytesWritten < arrived) {
        throw new RefusedError('bad-encoding', 'the body goes on after the end of its compressed content');
      }
    }
    return sink.whole();
  } finally {
    unpack?.destroy();
  }
}

function tooLarge(what: string): RefusedError {
  return new RefusedError('body-too-large', `the body is ${what}`);
}

class Sink {
  readonly #limits: BodyLimits;
  readonly #account: Account;
  readonly #chunks: Buffer[] = [];
  #bytes = 0;

  constructor(limits: BodyLimits, account: Account) {
    this.#limits = limits;
    this.#account = account;
  }

  add(chunk: Buffer): void {
    this.#bytes += chunk.length;
    if (this.#bytes > this.#limits.maxBatchBytes) {
      throw tooLarge(`over ${this.#limits.maxBatchBytes} bytes after decompression (ingest.maxBatchBytes)`);
    }
    this.#account.take(chunk.length);
    this.#chunks.push(chunk);
  }

  whole(): Buffer {
    return this.#chunks.length === 1 && this.#chunks[0] !== undefined
      ? this.#chunks[0]
      : Buffer.concat(this.#chunks);
  }
}

/** Settles when the decompressor is through; rejects with what is wrong. Never left unhandled. */
function collect(unpack: Gunzip | ZstdDecompress, sink: Sink): Promise<void> {
  const end = new Promise<void>((resolve, reject) => {
    unpack.on('data', (chunk: Buffer) => {
      try {
        sink.add(chunk);
      } catch (error) {
        unpack.destroy();
        reject(error);
      }
    });
    unpack.on('end', resolve);
    unpack.on('error', (error) =>
      reject(new RefusedError('bad-encoding', `the body cannot be decompressed: ${error.message}`)),
    );
  });
  end.catch(() => undefined);
  return end;
}

/** Reads on and throws away what is left, for a while, so that the sender gets to read the answer. Says whether all came. */
export async function drain(source: Readable, maxBytes: number, maxMs: number): Promise<boolean> {
  if (source.readableEnded || source.destroyed) return source.readableEnded;
  let left = maxBytes;
  let timer: NodeJS.Timeout | undefined;
  const ended = await new Promise<boolean>((resolve) => {
    timer = setTimeout(() => resolve(false), maxMs);
    source.once('end', () => resolve(true));
    source.once('close', () => resolve(source.readableEnded));
    source.on('data', (chunk: Buffer) => {
      left -= chunk.length;
      if (left < 0) resolve(false);
    });
    source.resume();
  });
  clearTimeout(timer);
  if (!ended) source.pause();
  return ended;
}

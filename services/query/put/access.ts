/** Who may write: the bearers of `query.writeTokens`; without any, this machine alone. */
import { createHash, timingSafeEqual } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import { ProblemError } from '../problem.ts';

const loopbackAddress = /^(127\.|::1$|::ffff:127\.)/;
const loopbackHost = /^(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?$/i;

export interface WriteRequest {
  readonly remoteAddress: string;
  readonly headers: IncomingHttpHeaders;
}

/** Whether that is an address of loopback only. */
export function isLoopbackHost(host: string): boolean {
  return host === 'localhost' || loopbackAddress.test(host);
}

function digest(token: string): Buffer {
  return createHash('sha256').update(token).digest();
}

/** Makes the check. It throws a {@link ProblemError} where the request may not write. */
export function makeWriteAccess(config: {
  readonly host: string;
  readonly writeTokens: readonly string[];
}): (request: WriteRequest) => void {
  const known = config.writeTokens.map(digest);
  if (known.length > 0) {
    return ({ headers }) => {
      const token = /^Bearer +(\S+) *$/i.exec(headers.authorization ?? '')?.[1];
      if (token === undefined)
        throw new ProblemError('no-token', 'send the header Authorization: Bearer TOKEN (query.writeTokens)');
      const given = digest(token);
      // All are compared, so that the time taken tells nothing.
      if (known.filter((hash) => timingSafeEqual(hash, given)).length === 0)
        throw new ProblemError('no-token', 'the token in the header Authorization is not known');
    };
  }
  const refuse = (why: string): never => {
    throw new ProblemError('forbidden', `${why}; give the writer a token with query.writeTokens`);
  };
  return ({ remoteAddress, headers }) => {
    if (!isLoopbackHost(config.host))
      refuse(`no tokens for writing are configured, and the API listens on ${config.host}, not on loopback`);
    // A proxy on this machine would lend its own address to everybody.
    const isForwarded = headers.forwarded !== undefined || headers['x-forwarded-for'] !== undefined;
    if (!loopbackAddress.test(remoteAddress) || isForwarded)
      refuse('no tokens for writing are configured, so only this machine may write');
    // A page from elsewhere may have its name point at this machine.
    const { host = '', origin } = headers;
    const isForeign = origin !== undefined && !loopbackHost.test(origin.replace(/^https?:\/\//, ''));
    if (!loopbackHost.test(host) || isForeign)
      refuse(
        'no tokens for writing are configured, so only requests to localhost by name or address may write',
      );
  };
}

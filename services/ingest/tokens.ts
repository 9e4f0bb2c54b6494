/** Who may report what: tokens are kept as hashes, and compared in constant time. */
import { createHash, timingSafeEqual } from 'node:crypto';
import Type from 'typebox';
import { Check } from 'typebox/value';
import { parse } from 'yaml';
import { IngestConfig, type TokenGrant } from './config.ts';

/** What one token allows. */
export interface Grant {
  readonly allowsAgent: (agentId: string) => boolean;
  readonly networks: readonly string[];
  readonly clusters: readonly string[];
}

export interface TokenBook {
  readonly size: number;
  /** The grant of a token, or `null` where nobody has it. */
  find(token: string): Grant | null;
}

type Tokens = Readonly<Record<string, TokenGrant>>;

function digest(token: string): Buffer {
  return createHash('sha256').update(token).digest();
}

/** A pattern in which `*` stands for any text. */
export function matcher(pattern: string): (text: string) => boolean {
  const source = pattern
    .split('*')
    .map((part) => part.replace(/[\\^$.+?()[\]{}|/-]/g, '\\$&'))
    .join('.*');
  const expression = new RegExp(`^${source}$`, 's');
  return (text) => expression.test(text);
}

/** Takes the tokens of all maps; a token in two of them has the later one's grant. */
export function makeTokenBook(...maps: readonly Tokens[]): TokenBook {
  const grants = new Map<string, { readonly hash: Buffer; readonly grant: Grant }>();
  for (const [token, { agents, networks, clusters }] of maps.flatMap((map) => Object.entries(map))) {
    const hash = digest(token);
    grants.set(hash.toString('hex'), { hash, grant: { allowsAgent: matcher(agents), networks, clusters } });
  }
  return {
    size: grants.size,
    find(token) {
      // The hash is not the caller's to choose, so how long the look-up takes tells nothing about a token.
      const hash = digest(token);
      const known = grants.get(hash.toString('hex'));
      return known !== undefined && timingSafeEqual(known.hash, hash) ? known.grant : null;
    },
  };
}

const TokensFile = Type.Index(IngestConfig, ['tokens']);

/** Reads the text of a tokens file. @throws {Error} saying what is wrong; no token is in the message. */
export function parseTokensFile(text: string): Tokens {
  const document: unknown = parse(text) ?? {};
  const filled =
    typeof document === 'object' && document !== null && !Array.isArray(document)
      ? Object.fromEntries(
          Object.entries(document).map(([token, grant]) => [
            token,
            { agents: '*', networks: [], clusters: [], ...(grant ?? {}) },
          ]),
        )
      : document;
  if (Check(TokensFile, filled)) return filled;
  // What TypeBox says names the place by its keys, and the keys are the secrets.
  throw new Error(
    'expected tokens of 16 or more characters without spaces, each with agents (a pattern), networks and clusters (lists)',
  );
}

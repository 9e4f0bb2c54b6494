/** Where the API server is and how to speak to it: from a kubeconfig, or from the pod kubelink runs in. */
import { readFileSync } from 'node:fs';
import type { RequestOptions } from 'node:https';
import { dirname, resolve } from 'node:path';
import type { SecureContextOptions } from 'node:tls';
import { KubeConfig } from '@kubernetes/client-node';
import { parse } from 'yaml';

/** Namespace of the lease where neither context nor pod has one. */
const fallbackNamespace = 'eastwest';
/** Headers are made anew this often, ms: a token in a file is replaced long before it expires. */
const headersMaxAgeMs = 10_000;

export interface Access {
  /** `https://host:port`. */
  readonly origin: string;
  /** Path before every request path, without a slash at the end; empty for most. */
  readonly pathPrefix: string;
  readonly tls: SecureContextOptions & { rejectUnauthorized?: boolean; servername?: string };
  /** Namespace that the context or the pod has. */
  readonly namespace: string;
  /** Headers of a request, with the credentials of the moment. Rejects where a helper program or file fails. */
  headers(): Promise<Readonly<Record<string, string>>>;
}

export interface AccessOptions {
  /** Path; in-cluster where absent. */
  readonly kubeconfig?: string;
  readonly context?: string;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Paths of tokens by user: kubectl knows `tokenFile`, the client library does not. */
function tokenFiles(text: string): Map<string, string> {
  const files = new Map<string, string>();
  const config: unknown = parse(text);
  const users = isRecord(config) && Array.isArray(config.users) ? config.users : [];
  for (const entry of users) {
    if (!isRecord(entry) || typeof entry.name !== 'string' || !isRecord(entry.user)) continue;
    if (typeof entry.user.tokenFile === 'string') files.set(entry.name, entry.user.tokenFile);
  }
  return files;
}

function fromFile(path: string, context: string | undefined): KubeConfig {
  const config = new KubeConfig();
  config.loadFromFile(path);
  const files = tokenFiles(readFileSync(path, 'utf8'));
  config.users = config.users.map((user) => {
    const file = files.get(user.name);
    if (file === undefined) return user;
    const tokenFile = resolve(dirname(path), file);
    return { ...user, authProvider: { name: 'tokenFile', config: { tokenFile } } };
  });
  if (context !== undefined) config.setCurrentContext(context);
  if (config.getContextObject(config.getCurrentContext()) === null) {
    throw new Error(`${path} has no context ${JSON.stringify(config.getCurrentContext() ?? '')}`);
  }
  return config;
}

function fromPod(): KubeConfig {
  const config = new KubeConfig();
  config.loadFromCluster();
  if (config.getCurrentCluster()?.server.includes('undefined') !== false) {
    throw new Error('this is no pod of a cluster (KUBERNETES_SERVICE_HOST is not set): name a kubeconfig');
  }
  return config;
}

interface RequestSettings {
  readonly headers: Readonly<Record<string, string>>;
  readonly tls: Access['tls'];
}

async function settingsOf(config: KubeConfig): Promise<RequestSettings> {
  const options: RequestOptions = { headers: {} };
  await config.applyToHTTPSOptions(options);
  const headers: Record<string, string> = {};
  for (const [name, value] of Object.entries(options.headers ?? {})) {
    // A token from a file ends in a line break, which no header may.
    headers[name.toLowerCase()] = String(value).trim();
  }
  if (typeof options.auth === 'string') {
    headers.authorization = `Basic ${Buffer.from(options.auth).toString('base64')}`;
  }
  const { ca, cert, key, pfx, passphrase, rejectUnauthorized, servername } = options;
  return {
    headers,
    tls: {
      ...(ca === undefined ? {} : { ca }),
      ...(cert === undefined ? {} : { cert }),
      ...(key === undefined ? {} : { key }),
      ...(pfx === undefined ? {} : { pfx }),
      ...(passphrase === undefined ? {} : { passphrase }),
      ...(rejectUnauthorized === undefined ? {} : { rejectUnauthorized }),
      ...(servername === undefined ? {} : { servername }),
    },
  };
}

/**
 * Reads the configuration and the credentials anew. @throws {Error} saying what is wrong: no file, no such context, no
 * HTTPS, a proxy, a helper program that fails.
 */
export async function loadAccess({ kubeconfig, context }: AccessOptions): Promise<Access> {
  const config = kubeconfig === undefined ? fromPod() : fromFile(kubeconfig, context);
  const cluster = config.getCurrentCluster();
  if (cluster === null)
    throw new Error(`context ${config.getCurrentContext()} names a cluster that is not there`);
  const url = new URL(cluster.server);
  if (url.protocol !== 'https:') throw new Error(`${cluster.server}: only https: can be spoken to`);
  if (cluster.proxyUrl) throw new Error(`${cluster.server}: a proxy (proxy-url) cannot be used`);
  let current = await settingsOf(config);
  let madeAt = performance.now();
  return {
    origin: url.origin,
    pathPrefix: url.pathname.replace(/\/$/, ''),
    tls: current.tls,
    namespace: config.getContextObject(config.getCurrentContext())?.namespace ?? fallbackNamespace,
    async headers() {
      if (performance.now() - madeAt > headersMaxAgeMs) {
        current = await settingsOf(config);
        madeAt = performance.now();
      }
      return current.headers;
    },
  };
}

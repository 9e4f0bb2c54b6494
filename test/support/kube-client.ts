/** What tests do to a cluster: one HTTP/2 connection, many requests at once. */
import { existsSync, readFileSync } from 'node:fs';
import { type ClientHttp2Session, connect } from 'node:http2';

/** Requests on their way at once in the bulk operations. */
const concurrency = 48;
const requestTimeoutMs = 60_000;

export interface KubeObject {
  readonly apiVersion?: string;
  readonly kind?: string;
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly uid?: string;
    readonly resourceVersion?: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly deletionTimestamp?: string;
  };
  readonly spec?: Readonly<Record<string, unknown>>;
  readonly status?: { readonly podIP?: string } & Readonly<Record<string, unknown>>;
}

export interface PodSettings {
  readonly ip?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly node?: string;
  readonly spec?: object;
}

/** An answer that was no success. */
export class KubeError extends Error {
  override readonly name = 'KubeError';
  readonly status: number;
  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

/** Calls `work` for each item, many at once; rejects with the first failure. */
export async function inParallel<T>(items: Iterable<T>, work: (item: T) => Promise<unknown>): Promise<void> {
  const iterator = items[Symbol.iterator]();
  const worker = async (): Promise<void> => {
    for (let next = iterator.next(); !next.done; next = iterator.next()) await work(next.value);
  };
  await Promise.all(Array.from({ length: concurrency }, worker));
}

export class KubeClient {
  readonly #url: string;
  readonly #certificateFile: string;
  readonly #token: string;
  #session: ClientHttp2Session | null = null;

  constructor(url: string, certificateFile: string, token: string) {
    this.#url = url;
    this.#certificateFile = certificateFile;
    this.#token = token;
  }

  close(): void {
    this.#session?.destroy();
    this.#session = null;
  }

  #connection(): ClientHttp2Session {
    if (this.#session !== null && !this.#session.destroyed && !this.#session.closed) return this.#session;
    const session = connect(this.#url, { ca: readFileSync(this.#certificateFile) });
    session.on('error', () => undefined);
    session.setMaxListeners(0);
    session.unref();
    this.#session = session;
    return session;
  }

  /** The JSON answer. @throws {KubeError} for any other than success, another error where the connection broke. */
  async request(method: string, path: string, body?: object, type = 'application/json'): Promise<unknown> {
    return JSON.parse(await this.text(method, path, body, type));
  }

  async text(method: string, path: string, body?: object, type = 'application/json'): Promise<string> {
    const stream = this.#connection().request(
      {
        ':method': method,
        ':path': path,
        authorization: `Bearer ${this.#token}`,
        accept: 'application/json',
        ...(body === undefined ? {} : { 'content-type': type }),
      },
      { endStream: body === undefined },
    );
    stream.setTimeout(requestTimeoutMs, () =>
      stream.destroy(new Error(`${method} ${path}: no answer in time`)),
    );
    if (body !== undefined) stream.end(JSON.stringify(body));
    let status = 0;
    stream.once('response', (headers) => {
      status = headers[':status'] ?? 0;
    });
    const chunks: Buffer[] = [];
    await new Promise<void>((resolve, reject) => {
      stream.on('data', (chunk: Buffer) => chunks.push(chunk));
      stream.once('end', resolve);
      stream.once('error', reject);
      stream.once('close', () => reject(new Error(`${method} ${path}: the connection broke`)));
    });
    const text = Buffer.concat(chunks).toString('utf8');
    if (status === 0) throw new Error(`${method} ${path}: the connection broke`);
    if (status < 200 || status > 299) throw new KubeError(status, `${method} ${path}: ${status} ${text}`);
    return text;
  }

  async isReady(): Promise<boolean> {
    if (!existsSync(this.#certificateFile)) return false;
    try {
      await this.text('GET', '/readyz');
      return true;
    } catch {
      this.close();
      return false;
    }
  }

  /** Objects of a collection such as `/api/v1/pods`, all of them. */
  async list(path: string): Promise<KubeObject[]> {
    const list = (await this.request('GET', path)) as { items: KubeObject[] };
    return list.items;
  }

  async create(path: string, object: object): Promise<KubeObject> {
    return (await this.request('POST', path, object)) as KubeObject;
  }

  async mergePatch(path: string, patch: object): Promise<KubeObject> {
    return (await this.request('PATCH', path, patch, 'application/merge-patch+json')) as KubeObject;
  }

  createNamespace(name: string, labels: Readonly<Record<string, string>> = {}): Promise<KubeObject> {
    return this.create('/api/v1/namespaces', { metadata: { name, labels } });
  }

  createNode(name: string, ip: string, podCidr: string): Promise<KubeObject> {
    return this.create('/api/v1/nodes', {
      metadata: { name },
      spec: { podCIDR: podCidr, podCIDRs: [podCidr] },
    }).then(() =>
      this.mergePatch(`/api/v1/nodes/${name}/status`, {
        status: { addresses: [{ type: 'InternalIP', address: ip }] },
      }),
    );
  }

  /** A pod that runs, as a kubelet would report it; without an address where none is given. */
  async createPod(namespace: string, name: string, settings: PodSettings = {}): Promise<KubeObject> {
    const { ip, labels = {}, node = 'node-0', spec = {} } = settings;
    const pod = await this.create(`/api/v1/namespaces/${namespace}/pods`, {
      metadata: { name, labels },
      spec: { nodeName: node, containers: [{ name: 'main', image: 'none' }], ...spec },
    });
    return ip === undefined ? pod : this.readdressPod(namespace, name, ip);
  }

  /** Gives a pod this address in place of the one it has. */
  readdressPod(namespace: string, name: string, ip: string): Promise<KubeObject> {
    return this.mergePatch(`/api/v1/namespaces/${namespace}/pods/${name}/status`, {
      status: {
        phase: 'Running',
        podIP: ip,
        podIPs: [{ ip }],
        startTime: new Date().toISOString().replace(/\.\d+Z$/, 'Z'),
      },
    });
  }

  relabelPod(namespace: string, name: string, labels: Readonly<Record<string, string>>): Promise<KubeObject> {
    return this.mergePatch(`/api/v1/namespaces/${namespace}/pods/${name}`, { metadata: { labels } });
  }

  /** At once: nobody waits for containers to stop. */
  async deletePod(namespace: string, name: string): Promise<void> {
    await this.request('DELETE', `/api/v1/namespaces/${namespace}/pods/${name}?gracePeriodSeconds=0`);
  }

  /** A service account with a token that ends in ten minutes. */
  async serviceAccountToken(namespace: string, name: string): Promise<string> {
    const path = `/api/v1/namespaces/${namespace}/serviceaccounts`;
    const found = (await this.list(path)).some(({ metadata }) => metadata.name === name);
    if (!found) await this.create(path, { metadata: { name } });
    const answer = await this.create(`${path}/${name}/token`, {
      apiVersion: 'authentication.k8s.io/v1',
      kind: 'TokenRequest',
      spec: { expirationSeconds: 600 },
    });
    return String(answer.status?.token);
  }

  /** Creates each object of a manifest, or puts it in the place of the one that is there. */
  async apply(objects: readonly KubeObject[]): Promise<void> {
    for (const object of objects) {
      const { apiVersion = '', kind = '', metadata } = object;
      const base = apiVersion.includes('/') ? `/apis/${apiVersion}` : `/api/${apiVersion}`;
      const scope = metadata.namespace === undefined ? '' : `/namespaces/${metadata.namespace}`;
      const path = `${base}${scope}/${kind.toLowerCase()}s`;
      try {
        await this.create(path, object);
      } catch (error) {
        if (!(error instanceof KubeError) || error.status !== 409) throw error;
        await this.mergePatch(`${path}/${metadata.name}`, object);
      }
    }
  }
}

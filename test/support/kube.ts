/**
 * A real Kubernetes API server (with its etcd) for tests: the binary that EASTWEST_KUBELAB names, else one that lies
 * beside the project, else one that Go builds from `test/kube`, else none, with the reason. With CI=true none is a failure.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { createHash, generateKeyPairSync } from 'node:crypto';
import { createReadStream, createWriteStream, existsSync, openSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { createGunzip } from 'node:zlib';
import { KubeClient } from './kube-client.ts';

const run = promisify(execFile);
const sourceDir = fileURLToPath(new URL('../kube/', import.meta.url));
const besideProject = fileURLToPath(new URL('../../../shared/kube/kubelab.gz', import.meta.url));
const buildTimeoutMs = 1_200_000;
const startTimeoutMs = 90_000;
const stopTimeoutMs = 10_000;
const adminToken = 'admin-token';

export interface KubeForTests {
  /** `https://127.0.0.1:port` of the API server. */
  readonly url: string;
  /** A client that may do everything. */
  readonly client: KubeClient;
  /** Folder of its own, for kubeconfigs and tokens; gone with `stop`. */
  readonly dir: string;
  /** Writes a kubeconfig for this user entry (`{ token: ... }`, `{ tokenFile: ... }`); returns its path. */
  kubeconfig(name: string, user: object): Promise<string>;
  /** SIGKILL of API server and etcd; the data stays. */
  kill(): Promise<void>;
  /** After `kill`: the same ports, the same data. */
  start(): Promise<void>;
  /** Forgets all former revisions, so that a watch or list that was away has to begin anew (410) after a restart. */
  compact(): Promise<void>;
  /** Stops answering without closing anything (SIGSTOP), and goes on (SIGCONT). */
  freeze(): void;
  thaw(): void;
  /** Ends it and removes what it kept. */
  stop(): Promise<void>;
}

export interface KubeOptions {
  /** Runs the controller manager too: namespaces are emptied, endpoint slices are made. */
  readonly controllers?: boolean;
}

/** Starts a control plane, or says why there is none. @throws {Error} instead of the latter when CI=true. */
export async function startKube(options: KubeOptions = {}): Promise<KubeForTests | { skip: string }> {
  const binary = await findBinary();
  if (binary === null) {
    const skip = 'no Kubernetes API server: set EASTWEST_KUBELAB to a binary (test/kube), or install Go';
    if (process.env.CI === 'true') throw new Error(skip);
    return { skip };
  }
  return ControlPlane.create(binary, options);
}

async function findBinary(): Promise<string | null> {
  const named = process.env.EASTWEST_KUBELAB;
  if (named !== undefined && named !== '') return named.endsWith('.gz') ? unpacked(named) : named;
  if (existsSync(besideProject)) return unpacked(besideProject);
  return built();
}

function cacheDir(): string {
  const modules = fileURLToPath(new URL('../../node_modules/', import.meta.url));
  return existsSync(modules) ? join(modules, '.cache', 'eastwest') : join(tmpdir(), 'eastwest-cache');
}

/** Puts a file in the cache, once for each key; `make` writes it to the path it is given. */
async function cached(key: string, make: (path: string) => Promise<void>): Promise<string> {
  const path = join(cacheDir(), `kube-${key}`);
  if (existsSync(path)) return path;
  await mkdir(cacheDir(), { recursive: true });
  const fresh = `${path}.${process.pid}`;
  try {
    await make(fresh);
    await chmod(fresh, 0o755);
    await rename(fresh, path);
  } finally {
    await rm(fresh, { force: true });
  }
  return path;
}

async function unpacked(archive: string): Promise<string> {
  const { size, mtimeMs } = await stat(archive);
  const key = createHash('sha256').update(`${archive} ${size} ${mtimeMs}`).digest('hex').slice(0, 12);
  return cached(key, (path) => pipeline(createReadStream(archive), createGunzip(), createWriteStream(path)));
}

async function built(): Promise<string | null> {
  try {
    await run('go', ['version']);
  } catch {
    return null;
  }
  const sources = await Promise.all(['go.mod', 'main.go'].map((name) => readFile(join(sourceDir, name))));
  const key = createHash('sha256').update(Buffer.concat(sources)).digest('hex').slice(0, 12);
  const version = /k8s\.io\/kubernetes (v[\d.]+)/.exec(sources[0]?.toString() ?? '')?.[1] ?? '';
  return cached(key, async (path) => {
    const flags = `-s -w -X k8s.io/component-base/version.gitVersion=${version}`;
    await run('go', ['build', '-p', '2', '-trimpath', '-ldflags', flags, '-o', path, '.'], {
      cwd: sourceDir,
      env: { ...process.env, CGO_ENABLED: '0' },
      timeout: buildTimeoutMs,
      maxBuffer: 16 * 1024 * 1024,
    });
  });
}

interface Ports {
  readonly api: number;
  readonly etcd: number;
  readonly peer: number;
}

class ControlPlane implements KubeForTests {
  readonly dir: string;
  readonly url: string;
  readonly client: KubeClient;
  readonly #binary: string;
  readonly #options: KubeOptions;
  readonly #ports: Ports;
  readonly #endAtExit = (): void => {
    this.#server?.kill('SIGKILL');
    this.#controllers?.kill('SIGKILL');
  };
  #server: ChildProcess | null = null;
  #controllers: ChildProcess | null = null;

  private constructor(binary: string, dir: string, ports: Ports, options: KubeOptions) {
    this.#binary = binary;
    this.#options = options;
    this.#ports = ports;
    this.dir = dir;
    this.url = `https://127.0.0.1:${ports.api}`;
    this.client = new KubeClient(this.url, join(dir, 'certificates', 'apiserver.crt'), adminToken);
    process.once('exit', this.#endAtExit);
  }

  static async create(binary: string, options: KubeOptions): Promise<ControlPlane> {
    const dir = await mkdtemp(join(tmpdir(), 'eastwest-kube-'));
    const ports = { api: await freePort(), etcd: await freePort(), peer: await freePort() };
    const { privateKey } = generateKeyPairSync('rsa', {
      modulusLength: 2048,
      publicKeyEncoding: { type: 'spki', format: 'pem' },
      privateKeyEncoding: { type: 'pkcs1', format: 'pem' },
    });
    await writeFile(join(dir, 'service-account.key'), privateKey);
    await writeFile(join(dir, 'tokens.csv'), `${adminToken},admin,1,"system:masters"\n`);
    const plane = new ControlPlane(binary, dir, ports, options);
    try {
      await plane.start();
    } catch (error) {
      await plane.stop();
      throw error;
    }
    return plane;
  }

  async start(): Promise<void> {
    const { api, etcd, peer } = this.#ports;
    const key = join(this.dir, 'service-account.key');
    const server = this.#spawn(
      'apiserver',
      {
        ETCD_DIR: join(this.dir, 'etcd'),
        ETCD_CLIENT: `http://127.0.0.1:${etcd}`,
        ETCD_PEER: `http://127.0.0.1:${peer}`,
      },
      [
        `--etcd-servers=http://127.0.0.1:${etcd}`,
        '--bind-address=127.0.0.1',
        '--advertise-address=127.0.0.1',
        '--endpoint-reconciler-type=none',
        `--secure-port=${api}`,
        // Makes a certificate of its own there, once.
        `--cert-dir=${join(this.dir, 'certificates')}`,
        '--service-cluster-ip-range=10.96.0.0/16',
        `--token-auth-file=${join(this.dir, 'tokens.csv')}`,
        '--authorization-mode=RBAC',
        '--service-account-issuer=https://kubernetes.default.svc',
        `--service-account-key-file=${key}`,
        `--service-account-signing-key-file=${key}`,
        // So that a pod needs no service account.
        '--disable-admission-plugins=ServiceAccount',
      ],
    );
    this.#server = server;
    await this.#untilReady(server);
    if (this.#options.controllers === true && this.#controllers === null) {
      const kubeconfig = await this.kubeconfig('controllers', { token: adminToken });
      this.#controllers = this.#spawn('kcm', {}, [
        `--kubeconfig=${kubeconfig}`,
        '--secure-port=0',
        '--leader-elect=false',
        '--kube-api-qps=500',
        '--kube-api-burst=1000',
        '--controllers=namespace-controller,endpointslice-controller,garbage-collector-controller',
      ]);
    }
  }

  async kubeconfig(name: string, user: object): Promise<string> {
    const path = join(this.dir, `${name}.kubeconfig`);
    const certificate = join(this.dir, 'certificates', 'apiserver.crt');
    const config = {
      apiVersion: 'v1',
      kind: 'Config',
      'current-context': 'test',
      clusters: [{ name: 'test', cluster: { server: this.url, 'certificate-authority': certificate } }],
      users: [{ name: 'user', user }],
      contexts: [{ name: 'test', context: { cluster: 'test', user: 'user' } }],
    };
    await writeFile(path, JSON.stringify(config));
    return path;
  }

  async kill(): Promise<void> {
    this.client.close();
    await end(this.#server, 'SIGKILL');
    this.#server = null;
  }

  async compact(): Promise<void> {
    const base = `http://127.0.0.1:${this.#ports.etcd}/v3/kv`;
    const post = async (path: string, body: object): Promise<unknown> => {
      const response = await fetch(`${base}/${path}`, { method: 'POST', body: JSON.stringify(body) });
      if (!response.ok) throw new Error(`etcd ${path}: ${response.status} ${await response.text()}`);
      return response.json();
    };
    const range = await post('range', { key: Buffer.from('/').toString('base64'), limit: '1' });
    const { revision } = (range as { header: { revision: string } }).header;
    await post('compaction', { revision, physical: true });
  }

  freeze(): void {
    this.#server?.kill('SIGSTOP');
  }

  thaw(): void {
    this.#server?.kill('SIGCONT');
  }

  async stop(): Promise<void> {
    this.client.close();
    await Promise.all([end(this.#server, 'SIGKILL'), end(this.#controllers, 'SIGKILL')]);
    process.off('exit', this.#endAtExit);
    await rm(this.dir, { recursive: true, force: true });
  }

  #spawn(part: string, environment: Record<string, string>, flags: string[]): ChildProcess {
    const log = openSync(join(this.dir, `${part}.log`), 'a');
    return spawn(this.#binary, [part, ...flags], {
      cwd: this.dir,
      env: { PATH: process.env.PATH ?? '', HOME: this.dir, ...environment },
      stdio: ['ignore', log, log],
    });
  }

  async #untilReady(server: ChildProcess): Promise<void> {
    const deadline = performance.now() + startTimeoutMs;
    for (;;) {
      if (server.exitCode !== null || server.signalCode !== null || performance.now() > deadline) {
        const text = await readFile(join(this.dir, 'apiserver.log'), 'utf8');
        throw new Error(`the API server has ended or is not ready in time:\n${text.slice(-3_000)}`);
      }
      if (await this.client.isReady()) return;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}

async function end(child: ChildProcess | null, signal: NodeJS.Signals): Promise<void> {
  if (child === null || child.exitCode !== null || child.signalCode !== null) return;
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  child.kill(signal);
  const timer = setTimeout(() => child.kill('SIGKILL'), stopTimeoutMs);
  await ended;
  clearTimeout(timer);
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise<void>((resolve) => server.close(() => resolve()));
  if (address === null || typeof address === 'string') throw new Error('no free port');
  return address.port;
}

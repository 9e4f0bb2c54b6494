/**
 * A real Kafka broker for tests: the one KAFKA_BROKERS names, else one in Docker (testcontainers), else one that
 * Maven fetches and Java runs, else none, with the reason. With CI=true none is a failure.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { createHash, randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { cp, mkdir, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import kafkajs from 'kafkajs';
import { mendRequestQueue } from '../../lib/bus/kafka/request-queue.ts';

const run = promisify(execFile);
const pomFile = fileURLToPath(new URL('./kafka/pom.xml', import.meta.url));
const containerImage = 'apache/kafka:4.1.0';
const probeTimeoutMs = 5_000;
const downloadTimeoutMs = 300_000;
const startTimeoutMs = 120_000;
const stopTimeoutMs = 10_000;

export interface KafkaForTests {
  readonly brokers: string[];
  /** Ends it and removes what it kept. */
  stop(): Promise<void>;
  /** SIGKILL; the data stays. */
  kill(): Promise<void>;
  /** After `kill`: the same ports, the same data. */
  start(): Promise<void>;
}

/** Starts a broker, or says why there is none. @throws {Error} instead of the latter when CI=true. */
export async function startKafka(): Promise<KafkaForTests | { skip: string }> {
  const brokers = process.env.KAFKA_BROKERS;
  if (brokers !== undefined && brokers !== '') return givenKafka(brokers.split(','));
  if (await answers('docker', ['info', '--format', '{{.ServerVersion}}'])) return startContainer();
  if ((await answers('java', ['-version'])) && (await answers('mvn', ['-v']))) return startProcess();
  const skip = 'no Kafka: set KAFKA_BROKERS, or install Docker, or Java (17 or later) with Maven';
  if (process.env.CI === 'true') throw new Error(skip);
  return { skip };
}

async function answers(command: string, args: string[]): Promise<boolean> {
  try {
    const { stdout, stderr } = await run(command, args, { timeout: probeTimeoutMs });
    return `${stdout}${stderr}`.trim() !== '';
  } catch {
    return false;
  }
}

function givenKafka(brokers: string[]): KafkaForTests {
  const refuse = async (): Promise<void> => {
    throw new Error('the broker of KAFKA_BROKERS is not ours to stop');
  };
  return { brokers, stop: async () => undefined, kill: refuse, start: refuse };
}

async function startContainer(): Promise<KafkaForTests> {
  const { GenericContainer, Wait } = await import('testcontainers');
  const port = await freePort();
  const container = await new GenericContainer(containerImage)
    .withExposedPorts({ container: port, host: port })
    .withEnvironment({
      KAFKA_NODE_ID: '1',
      KAFKA_PROCESS_ROLES: 'broker,controller',
      KAFKA_LISTENERS: `PLAINTEXT://:${port},CONTROLLER://:9093`,
      KAFKA_ADVERTISED_LISTENERS: `PLAINTEXT://127.0.0.1:${port}`,
      KAFKA_CONTROLLER_LISTENER_NAMES: 'CONTROLLER',
      KAFKA_LISTENER_SECURITY_PROTOCOL_MAP: 'CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT',
      KAFKA_CONTROLLER_QUORUM_VOTERS: '1@localhost:9093',
      KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR: '1',
      KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR: '1',
      KAFKA_TRANSACTION_STATE_LOG_MIN_ISR: '1',
      KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS: '0',
      KAFKA_GROUP_MIN_SESSION_TIMEOUT_MS: '500',
    })
    .withWaitStrategy(Wait.forListeningPorts())
    .withStartupTimeout(downloadTimeoutMs)
    .start();
  const brokers = [`127.0.0.1:${port}`];
  await untilReady(brokers, () => undefined);
  const docker = (...args: string[]): Promise<unknown> => run('docker', [...args, container.getId()]);
  return {
    brokers,
    stop: async () => {
      await container.stop();
    },
    kill: async () => {
      await docker('kill', '--signal=KILL');
    },
    start: async () => {
      await docker('start');
      await untilReady(brokers, () => undefined);
    },
  };
}

async function startProcess(): Promise<KafkaForTests> {
  const jars = await fetchJars();
  const dir = await mkdtemp(join(tmpdir(), 'eastwest-kafka-'));
  const port = await freePort();
  const properties = join(dir, 'server.properties');
  await writeFile(properties, serverProperties(dir, port, await freePort()));
  const classPath = join(jars, '*');
  await run('java', [
    '-cp',
    classPath,
    'kafka.tools.StorageTool',
    'format',
    '-t',
    clusterId(),
    '-c',
    properties,
  ]);

  const brokers = [`127.0.0.1:${port}`];
  let broker: ChildProcess | undefined;
  const start = async (): Promise<void> => {
    let output = '';
    const child = spawn('java', ['-Xmx512m', '-cp', classPath, 'kafka.Kafka', properties], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    broker = child;
    const keep = (chunk: Buffer): void => {
      output = (output + chunk.toString('utf8')).slice(-4_000);
    };
    child.stdout.on('data', keep);
    child.stderr.on('data', keep);
    await untilReady(brokers, () =>
      child.exitCode === null ? undefined : `the broker has ended:\n${output}`,
    );
  };
  const end = async (signal: NodeJS.Signals): Promise<void> => {
    const child = broker;
    broker = undefined;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
    child.kill(signal);
    const timer = setTimeout(() => child.kill('SIGKILL'), stopTimeoutMs);
    await ended;
    clearTimeout(timer);
  };
  const endAtExit = (): void => {
    broker?.kill('SIGKILL');
  };
  process.once('exit', endAtExit);
  const stop = async (): Promise<void> => {
    // Nothing of it is wanted any more, so there is nothing to write out in order.
    await end('SIGKILL');
    process.off('exit', endAtExit);
    await rm(dir, { recursive: true, force: true });
  };
  try {
    await start();
  } catch (error) {
    await stop();
    throw error;
  }
  return { brokers, stop, kill: () => end('SIGKILL'), start };
}

/** The jars of the pom, fetched once for each content of it. */
async function fetchJars(): Promise<string> {
  const pom = await readFile(pomFile);
  const key = createHash('sha256').update(pom).digest('hex').slice(0, 12);
  const jars = join(cacheDir(), `kafka-${key}`);
  if (existsSync(jars)) return jars;
  await mkdir(dirname(jars), { recursive: true });
  const fresh = await mkdtemp(join(dirname(jars), 'kafka-fetch-'));
  try {
    // Maven writes beside its pom, which is in the repository: it works on a copy.
    await cp(pomFile, join(fresh, 'pom.xml'));
    const libs = join(fresh, 'libs');
    const args = ['-q', '-B', '-f', join(fresh, 'pom.xml'), 'dependency:copy-dependencies'];
    await run('mvn', [...args, `-DoutputDirectory=${libs}`, '-DincludeScope=runtime'], {
      timeout: downloadTimeoutMs,
    });
    await rename(libs, jars);
  } catch (error) {
    // Another process may have been quicker.
    if (!existsSync(jars)) throw error;
  } finally {
    await rm(fresh, { recursive: true, force: true });
  }
  return jars;
}

function cacheDir(): string {
  const modules = fileURLToPath(new URL('../../node_modules/', import.meta.url));
  return existsSync(modules) ? join(modules, '.cache', 'eastwest') : join(tmpdir(), 'eastwest-cache');
}

function serverProperties(dir: string, port: number, controllerPort: number): string {
  return [
    'process.roles=broker,controller',
    'node.id=1',
    `controller.quorum.voters=1@127.0.0.1:${controllerPort}`,
    `listeners=PLAINTEXT://127.0.0.1:${port},CONTROLLER://127.0.0.1:${controllerPort}`,
    `advertised.listeners=PLAINTEXT://127.0.0.1:${port}`,
    'controller.listener.names=CONTROLLER',
    'listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT',
    `log.dirs=${join(dir, 'data')}`,
    'auto.create.topics.enable=false',
    'offsets.topic.replication.factor=1',
    'offsets.topic.num.partitions=4',
    'transaction.state.log.replication.factor=1',
    'transaction.state.log.min.isr=1',
    'group.initial.rebalance.delay.ms=0',
    // A broker that was killed is let in again when its registration has run out.
    'broker.session.timeout.ms=2000',
    'broker.heartbeat.interval.ms=400',
    'group.min.session.timeout.ms=500',
    '',
  ].join('\n');
}

/** A random id in the form Kafka wants: 22 characters of URL-safe base64, of which the first can't be a dash. */
function clusterId(): string {
  return Buffer.from(`0${randomUUID().replaceAll('-', '').slice(1)}`, 'hex').toString('base64url');
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise<void>((resolve) => server.close(() => resolve()));
  if (address === null || typeof address === 'string') throw new Error('no free port');
  return address.port;
}

async function untilReady(brokers: string[], failure: () => string | undefined): Promise<void> {
  const deadline = performance.now() + startTimeoutMs;
  for (;;) {
    const reason = failure();
    if (reason !== undefined) throw new Error(reason);
    if (await isReady(brokers)) return;
    if (performance.now() > deadline) throw new Error(`Kafka at ${brokers.join(', ')} was not ready in time`);
    await new Promise<void>((resolve) => setTimeout(resolve, 100));
  }
}

async function isReady(brokers: string[]): Promise<boolean> {
  const [host = '', port = ''] = (brokers[0] ?? '').split(':');
  const isOpen = await new Promise<boolean>((resolve) => {
    const socket = connect({ host, port: Number(port) });
    socket.once('connect', () => resolve(true));
    socket.once('error', () => resolve(false));
    socket.once('close', () => socket.destroy());
    socket.once('connect', () => socket.destroy());
  });
  if (!isOpen) return false;
  mendRequestQueue();
  const admin = new kafkajs.Kafka({
    brokers,
    retry: { retries: 0 },
    logLevel: kafkajs.logLevel.NOTHING,
  }).admin();
  try {
    await admin.connect();
    return (await admin.describeCluster()).brokers.length > 0;
  } catch {
    return false;
  } finally {
    await admin.disconnect();
  }
}

/** Runs a real agent as a process, and a plain HTTP server that takes its batches; each may live in a network namespace. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

const root = new URL('../../', import.meta.url);

/** A flow as the receiver prints it. */
export interface ReceivedFlow {
  readonly protocol: number;
  readonly source: string;
  readonly sourcePort: number;
  readonly destination: string;
  readonly destinationPort: number;
  /** `address:port`, or empty. */
  readonly original: string;
  readonly reporter: string;
  readonly state: string;
  readonly connectionCount: number;
  readonly bytesForward: number;
  readonly bytesReverse: number;
  readonly packetsForward: number;
  readonly packetsReverse: number;
  readonly flags: number;
  readonly process: string;
  readonly startMs: number;
  readonly endMs: number;
}

export interface ReceivedBatch {
  readonly agentId: string;
  readonly bootId: string;
  readonly sequence: number;
  readonly network: string;
  readonly sourceKind: string;
  readonly sourceDroppedCount: number;
  readonly clockOffsetMs: number;
  readonly clockErrorMs: number;
  readonly authorization: string;
  /** SHA-256 of the batch's bytes. */
  readonly digest: string;
  readonly flows: readonly ReceivedFlow[];
}

/** Prints its port, then one JSON line a batch; answers what its standard input last said (a status), with its own time. */
const receiverProgram = `
import { createHash } from 'node:crypto';
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import { zstdDecompressSync } from 'node:zlib';
const { decodeFlowBatch } = await import(new URL('lib/wire/flow-batch.ts', process.argv[1]));
const { formatAddress, toMapped } = await import(new URL('lib/net/address.ts', process.argv[1]));
let status = 202;
const skewMs = Number(process.argv[3] ?? 0);
createInterface({ input: process.stdin }).on('line', (line) => { status = Number(line); });
const text = (bytes) => formatAddress(toMapped(bytes));
const server = createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  response.setHeader('eastwest-time-ms', Date.now() + skewMs);
  if (request.method === 'GET') return response.writeHead(200).end('{}');
  let body = Buffer.concat(chunks);
  if (request.headers['content-encoding'] === 'zstd') body = zstdDecompressSync(body);
  if (status === 202) {
    const batch = decodeFlowBatch(body);
    const flows = batch.flows.map((flow) => ({
      protocol: flow.protocol, source: text(flow.sourceAddress), sourcePort: flow.sourcePort,
      destination: text(flow.destinationAddress), destinationPort: flow.destinationPort,
      original: flow.originalDestinationAddress.length === 0 ? ''
        : text(flow.originalDestinationAddress) + ':' + flow.originalDestinationPort,
      reporter: flow.reporter, state: flow.state, connectionCount: flow.connectionCount,
      bytesForward: flow.bytesForward, bytesReverse: flow.bytesReverse,
      packetsForward: flow.packetsForward, packetsReverse: flow.packetsReverse, flags: flow.flags,
      process: batch.strings[flow.processName], startMs: batch.observedFromMs + flow.startMs,
      endMs: batch.observedFromMs + flow.startMs + flow.durationMs,
    }));
    const { agentId, bootId, sequence, network, sourceKind, sourceDroppedCount, clockOffsetMs, clockErrorMs } = batch;
    console.log(JSON.stringify({ agentId, bootId, sequence, network, sourceKind, sourceDroppedCount,
      clockOffsetMs, clockErrorMs,
      authorization: request.headers.authorization ?? '', digest: createHash('sha256').update(body).digest('hex'), flows }));
  }
  response.writeHead(status, { 'content-type': 'application/problem+json' });
  response.end(status === 202 ? '' : JSON.stringify({ title: 'no', detail: 'told so by the test' }));
});
server.listen(Number(process.argv[2] ?? 0), '127.0.0.1', () => console.log(server.address().port));
`;

const agentProgram = `
const { runService } = await import(new URL('lib/runtime/run.ts', process.argv[1]));
const { service } = await import(new URL('services/agent/main.ts', process.argv[1]));
process.exit(await runService(service));
`;

/** Starts a program (text) with this Node, in a network namespace where one is named. */
export function startProgram(
  program: string,
  options: { namespace?: string; args?: readonly string[]; environment?: Record<string, string> } = {},
): ChildProcess {
  const { namespace, args = [], environment = {} } = options;
  const node = [process.execPath, '--input-type=module', '-e', program, root.href, ...args];
  const command = namespace === undefined ? node : ['ip', 'netns', 'exec', namespace, ...node];
  return spawn(command[0]!, command.slice(1), {
    stdio: ['pipe', 'pipe', 'pipe'],
    env: { ...process.env, ...environment },
  });
}

export async function endProcess(child: ChildProcess, signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const closed = once(child, 'close');
  child.kill(signal);
  await closed;
}

/** Polls a condition; its last complaint is the error when time is up. */
export async function until<T>(
  what: string,
  timeoutMs: number,
  look: () => T | undefined | null,
): Promise<T> {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    const found = look();
    if (found !== undefined && found !== null) return found;
    if (Date.now() > deadline) throw new Error(`not within ${timeoutMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

export interface Receiver {
  readonly port: number;
  readonly url: string;
  readonly batches: ReceivedBatch[];
  /** Flows of all batches, each batch counted once however often it came. */
  flows(): ReceivedFlow[];
  /** What every further request is answered. */
  answer(status: number): void;
  stop(): Promise<void>;
}

/** The first line of a program that says it is up, the rest line by line. */
export async function firstLine(child: ChildProcess, onLine: (line: string) => void): Promise<string> {
  let errors = '';
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    errors += text;
  });
  return new Promise((resolve, reject) => {
    let isFirst = true;
    createInterface({ input: child.stdout! }).on('line', (line) => {
      if (isFirst) resolve(line);
      else onLine(line);
      isFirst = false;
    });
    child.once('close', () => reject(new Error(`ended before it was up: ${errors}`)));
  });
}

/** `skewMs`: how far its clock is ahead of this machine's. */
export async function startReceiver(
  options: { namespace?: string; port?: number; skewMs?: number } = {},
): Promise<Receiver> {
  const child = startProgram(receiverProgram, {
    ...(options.namespace === undefined ? {} : { namespace: options.namespace }),
    args: [String(options.port ?? 0), String(options.skewMs ?? 0)],
  });
  const batches: ReceivedBatch[] = [];
  const port = Number(await firstLine(child, (line) => batches.push(JSON.parse(line) as ReceivedBatch)));
  return {
    port,
    url: `http://127.0.0.1:${port}`,
    batches,
    flows: () => {
      const seen = new Set<string>();
      return batches.flatMap((batch) => {
        const name = `${batch.agentId} ${batch.bootId} ${batch.sequence}`;
        if (seen.has(name)) return [];
        seen.add(name);
        return batch.flows;
      });
    },
    answer: (status) => child.stdin?.write(`${status}\n`),
    stop: () => endProcess(child),
  };
}

export interface AgentProcess {
  readonly pid: number;
  /** Log lines, parsed. */
  readonly log: Record<string, unknown>[];
  /** Rejects when the agent ends first. */
  watching(): Promise<Record<string, unknown>>;
  kill(): Promise<void>;
  /** SIGTERM; resolves with the exit code. */
  stop(): Promise<number | null>;
}

/** Starts an agent; settings are keys of the section `agent` as environment variables name them. */
export function startAgent(options: {
  namespace?: string;
  dataDir: string;
  settings: Record<string, string | number>;
}): AgentProcess {
  const environment: Record<string, string> = {
    EASTWEST_RUNTIME_DATA_DIR: options.dataDir,
    EASTWEST_RUNTIME_HTTP_PORT: '0',
    EASTWEST_RUNTIME_LOG_FORMAT: 'json',
  };
  for (const [key, value] of Object.entries(options.settings))
    environment[`EASTWEST_AGENT_${key}`] = String(value);
  const child = startProgram(agentProgram, {
    ...(options.namespace === undefined ? {} : { namespace: options.namespace }),
    environment,
  });
  const log: Record<string, unknown>[] = [];
  let errors = '';
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    errors += text;
  });
  createInterface({ input: child.stdout! }).on('line', (line) =>
    log.push(JSON.parse(line) as Record<string, unknown>),
  );
  return {
    pid: child.pid!,
    log,
    watching: () =>
      until(`the agent watches connections; it said ${errors}`, 20_000, () => {
        if (child.exitCode !== null) throw new Error(`the agent ended: ${errors} ${JSON.stringify(log)}`);
        return log.find((line) => line.msg === 'watching connections');
      }),
    kill: () => endProcess(child),
    stop: async () => {
      await endProcess(child, 'SIGTERM');
      return child.exitCode;
    },
  };
}

export function temporaryFolder(): { path: string; remove: () => void } {
  const path = mkdtempSync(join(tmpdir(), 'eastwest-agent-'));
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) };
}

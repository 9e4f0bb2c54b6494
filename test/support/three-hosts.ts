/** Three hosts and a router between them, as network namespaces, with programs that serve and connect in each. */
import { type ChildProcess, execFile, spawnSync } from 'node:child_process';
import { endProcess, firstLine, startProgram, until } from './agent.ts';

export interface ThreeHosts {
  /** Host i has 10.78.i.2 and fd78:i::2. */
  readonly names: readonly string[];
  /** Loads a ruleset on host i; an error holds what nft said. */
  load(host: number, ruleset: string): void;
  /** What nft lists of the table, with no handles. */
  listed(host: number): string;
  /** Whether a connection, or a datagram and its echo, came through. */
  connects(from: number, protocol: 'tcp' | 'udp', address: string, port: number): Promise<boolean>;
  pings(from: number, address: string): Promise<boolean>;
  /** Opens a connection that stays; the function says whether it still echoes. */
  keep(from: number, address: string, port: number): Promise<() => Promise<boolean>>;
  stop(): Promise<void>;
}

export const addressOf = (host: number, family: 4 | 6): string =>
  family === 4 ? `10.78.${host + 1}.2` : `fd78:${host + 1}::2`;

/** Longest wait for an answer, ms: what is dropped never answers. */
const patienceMs = 1200;

function run(command: string, args: readonly string[], input?: string): string {
  const result = spawnSync(command, args, { encoding: 'utf8', ...(input === undefined ? {} : { input }) });
  if (result.error !== undefined) throw result.error;
  if (result.status !== 0) throw new Error(`${command} ${args.join(' ')}: ${result.stderr}`);
  return result.stdout;
}

/** Echoes on every port, and does what lines of JSON ask. */
const program = `
import { createSocket } from 'node:dgram';
import { createServer, connect } from 'node:net';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
const { tcp, udp, patienceMs } = JSON.parse(process.argv[2]);
for (const port of tcp) {
  const server = createServer((socket) => { socket.on('error', () => {}); socket.pipe(socket); });
  server.listen(port, '::');
  await once(server, 'listening');
}
for (const port of udp) for (const type of ['udp4', 'udp6']) {
  const socket = createSocket({ type, ipv6Only: type === 'udp6' });
  socket.on('message', (message, from) => socket.send(message, from.port, from.address, () => {}));
  socket.bind(port);
  await once(socket, 'listening');
}
const kept = new Map();
const echoes = (socket) => new Promise((resolve) => {
  const timer = setTimeout(() => resolve(false), patienceMs);
  socket.once('data', () => { clearTimeout(timer); resolve(true); });
  socket.write('x');
});
const tasks = {
  tcp({ address, port, keep }) {
    return new Promise((resolve) => {
      const socket = connect({ host: address, port });
      const end = (ok) => { clearTimeout(timer); if (!keep) socket.destroy(); resolve(ok); };
      const timer = setTimeout(() => end(false), patienceMs);
      socket.on('error', () => end(false));
      socket.on('connect', () => { if (keep) kept.set(keep, socket); echoes(socket).then(end); });
    });
  },
  udp({ address, port }) {
    return new Promise((resolve) => {
      const socket = createSocket(address.includes(':') ? 'udp6' : 'udp4');
      const end = (ok) => { clearTimeout(timer); clearInterval(again); socket.close(); resolve(ok); };
      const timer = setTimeout(() => end(false), patienceMs);
      socket.on('error', () => {});
      socket.on('message', () => end(true));
      const send = () => socket.send('x', port, address, () => {});
      const again = setInterval(send, patienceMs / 3);
      send();
    });
  },
  again({ keep }) { return echoes(kept.get(keep)); },
};
console.log('up');
for await (const line of createInterface({ input: process.stdin })) {
  const task = JSON.parse(line);
  tasks[task.do](task).then((ok) => console.log(JSON.stringify({ id: task.id, ok })));
}
`;

const suffix = process.pid;
const router = `ew-nft-router-${suffix}`;
const names = [0, 1, 2].map((host) => `ew-nft-${host}-${suffix}`);

function makeHosts(): void {
  for (const host of [router, ...names]) {
    run('ip', ['netns', 'add', host]);
    run('ip', ['-n', host, 'link', 'set', 'lo', 'up']);
  }
  for (const [host, name] of names.entries()) {
    const net = host + 1;
    run('ip', [
      'link',
      'add',
      'up0',
      'netns',
      name,
      'type',
      'veth',
      'peer',
      'name',
      `down${net}`,
      'netns',
      router,
    ]);
    for (const [at, device, last] of [
      [name, 'up0', 2],
      [router, `down${net}`, 1],
    ] as const) {
      run('ip', ['-n', at, 'addr', 'add', `10.78.${net}.${last}/24`, 'dev', device]);
      run('ip', ['-n', at, '-6', 'addr', 'add', `fd78:${net}::${last}/64`, 'dev', device, 'nodad']);
      run('ip', ['-n', at, 'link', 'set', device, 'up']);
    }
    run('ip', ['-n', name, 'route', 'add', 'default', 'via', `10.78.${net}.1`]);
    run('ip', ['-n', name, '-6', 'route', 'add', 'default', 'via', `fd78:${net}::1`]);
  }
  for (const setting of ['net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1'])
    run('ip', ['netns', 'exec', router, 'sysctl', '-q', '-w', setting]);
}

function removeHosts(): void {
  for (const host of [router, ...names]) spawnSync('ip', ['netns', 'del', host]);
}

/** Why there can be no such hosts here, or null. */
export function threeHostsObstacle(): string | null {
  if (process.platform !== 'linux') return 'network namespaces are a part of Linux';
  if (process.getuid?.() !== 0) return 'network namespaces need root';
  const missing = ['nft', 'ip', 'ping'].filter(
    (command) => spawnSync('sh', ['-c', `command -v ${command}`]).status !== 0,
  );
  if (missing.length > 0) return `${missing.join(', ')} missing: install nftables, iproute2, iputils-ping`;
  return null;
}

export async function startThreeHosts(ports: {
  readonly tcp: readonly number[];
  readonly udp: readonly number[];
}): Promise<ThreeHosts> {
  makeHosts();
  const answers = new Map<number, boolean>();
  let lastId = 0;
  const children: ChildProcess[] = [];
  for (const namespace of names) {
    const child = startProgram(program, { namespace, args: [JSON.stringify({ ...ports, patienceMs })] });
    children.push(child);
    await firstLine(child, (line) => {
      const { id, ok } = JSON.parse(line) as { id: number; ok: boolean };
      answers.set(id, ok);
    });
  }
  const ask = async (host: number, task: object): Promise<boolean> => {
    const id = ++lastId;
    children[host]!.stdin!.write(`${JSON.stringify({ id, ...task })}\n`);
    return until(`an answer of host ${host} to ${JSON.stringify(task)}`, 20_000, () => answers.get(id));
  };
  return {
    names,
    load(host, ruleset) {
      run('ip', ['netns', 'exec', names[host]!, 'nft', '-f', '-'], ruleset);
    },
    listed: (host) => run('ip', ['netns', 'exec', names[host]!, 'nft', 'list', 'table', 'inet', 'eastwest']),
    connects: (from, protocol, address, port) => ask(from, { do: protocol, address, port }),
    pings: (from, address) =>
      new Promise((resolve) => {
        const args = [
          'netns',
          'exec',
          names[from]!,
          'ping',
          '-c',
          '2',
          '-i',
          '0.3',
          '-W',
          '1',
          '-q',
          address,
        ];
        execFile('ip', args, (error) => resolve(error === null));
      }),
    async keep(from, address, port) {
      const keep = String(++lastId);
      if (!(await ask(from, { do: 'tcp', address, port, keep }))) throw new Error('it did not connect');
      return () => ask(from, { do: 'again', keep });
    },
    async stop() {
      for (const child of children) await endProcess(child);
      removeHosts();
    },
  };
}

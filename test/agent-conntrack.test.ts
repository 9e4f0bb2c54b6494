/**
 * The conntrack agent on real connections between three hosts: network namespaces that the test makes, a client, a
 * router and a server. All traffic stays in them.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import {
  type AgentProcess,
  endProcess,
  firstLine,
  type ReceivedFlow,
  type Receiver,
  startAgent,
  startProgram,
  startReceiver,
  temporaryFolder,
  until,
} from './support/agent.ts';

const suffix = process.pid;
const client = `ew-client-${suffix}`;
const router = `ew-router-${suffix}`;
const server = `ew-server-${suffix}`;
const hosts = [client, router, server];

function run(command: string, args: readonly string[], input?: string): string {
  const result = spawnSync(command, args, { encoding: 'utf8', ...(input === undefined ? {} : { input }) });
  if (result.error !== undefined) throw result.error;
  if (result.status !== 0) throw new Error(`${command} ${args.join(' ')}: ${result.stderr}`);
  return result.stdout;
}

const inHost = (host: string, ...command: string[]): string => run('ip', ['netns', 'exec', host, ...command]);

/** Tracking begins with the first rule that asks for a state. */
const trackingRules = `
table inet eastwest_test {
  chain input { type filter hook input priority 0;
    ct state established accept
  }
  chain forward { type filter hook forward priority 0;
    ct state established accept
  }
  chain output { type filter hook output priority 0;
    ct state established accept
  }
}
`;

/** As a cluster's node does it: the service address becomes a pod's on the way out. */
const serviceRules = `
table ip eastwest_service {
  chain output { type nat hook output priority -100;
    ip daddr 10.96.0.10 tcp dport 80 dnat to 10.77.2.2:8080
  }
}
`;

function makeHosts(): void {
  for (const host of hosts) {
    run('ip', ['netns', 'add', host]);
    run('ip', ['-n', host, 'link', 'set', 'lo', 'up']);
    run('ip', ['netns', 'exec', host, 'nft', '-f', '-'], trackingRules);
    inHost(
      host,
      'sysctl',
      '-q',
      '-w',
      'net.netfilter.nf_conntrack_acct=1',
      'net.netfilter.nf_conntrack_timestamp=1',
    );
  }
  for (const [index, host] of [client, server].entries()) {
    const net = index + 1;
    run('ip', [
      'link',
      'add',
      'up0',
      'netns',
      host,
      'type',
      'veth',
      'peer',
      'name',
      `down${net}`,
      'netns',
      router,
    ]);
    for (const [at, device, last] of [
      [host, 'up0', 2],
      [router, `down${net}`, 1],
    ] as const) {
      run('ip', ['-n', at, 'addr', 'add', `10.77.${net}.${last}/24`, 'dev', device]);
      run('ip', ['-n', at, '-6', 'addr', 'add', `fd77:${net}::${last}/64`, 'dev', device, 'nodad']);
      run('ip', ['-n', at, 'link', 'set', device, 'up']);
    }
    run('ip', ['-n', host, 'route', 'add', 'default', 'via', `10.77.${net}.1`]);
    run('ip', ['-n', host, '-6', 'route', 'add', 'default', 'via', `fd77:${net}::1`]);
  }
  inHost(router, 'sysctl', '-q', '-w', 'net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1');
  run('ip', ['netns', 'exec', client, 'nft', '-f', '-'], serviceRules);
}

function removeHosts(): void {
  for (const host of hosts) spawnSync('ip', ['netns', 'del', host]);
}

/** Why the test can't be run here, or `null`. */
function obstacle(): string | null {
  if (process.platform !== 'linux') return 'network namespaces are a part of Linux';
  if (process.getuid?.() !== 0) return 'network namespaces need root';
  const missing = ['conntrack', 'nft', 'ip', 'ping'].filter(
    (program) => spawnSync('sh', ['-c', `command -v ${program}`]).status !== 0,
  );
  if (missing.length > 0) {
    return `${missing.join(', ')} missing: install the packages conntrack, nftables, iproute2, iputils-ping`;
  }
  try {
    makeHosts();
    return null;
  } catch (error) {
    removeHosts();
    return `this kernel allows no network namespaces with connection tracking: ${String(error)}`;
  }
}

/** Echoes on TCP and UDP, both families. */
const serverProgram = `
import { createSocket } from 'node:dgram';
import { createServer } from 'node:net';
import { once } from 'node:events';
for (const [host, port] of [['0.0.0.0', 8080], ['::', 8081]]) {
  const tcp = createServer({ allowHalfOpen: true }, (socket) => { socket.on('error', () => {}); socket.pipe(socket); });
  tcp.listen({ host, port, ipv6Only: host === '::' });
  await once(tcp, 'listening');
  const udp = createSocket({ type: host === '::' ? 'udp6' : 'udp4', ipv6Only: host === '::' });
  udp.on('message', (message, from) => udp.send(message, from.port, from.address));
  udp.bind(port, host);
  await once(udp, 'listening');
}
console.log('up');
`;

/** Does what a line of JSON asks, and answers with the local port. */
const clientProgram = `
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { connect } from 'node:net';
import { createInterface } from 'node:readline';
const open = new Map();
const tasks = {
  async tcp({ host, port, bytes, keep }) {
    const socket = connect({ host, port });
    await once(socket, 'connect');
    const local = socket.localPort;
    if (bytes > 0) {
      socket.write(Buffer.alloc(bytes, 120));
      for (let got = 0; got < bytes; ) got += (await once(socket, 'data'))[0].length;
    }
    if (keep) { socket.on('error', () => {}); open.set(keep, socket); return local; }
    socket.end();
    socket.resume();
    await once(socket, 'close');
    return local;
  },
  async send({ keep, bytes }) {
    const socket = open.get(keep);
    socket.write(Buffer.alloc(bytes, 121));
    for (let got = 0; got < bytes; ) got += (await once(socket, 'data'))[0].length;
    return socket.localPort;
  },
  async end({ keep }) {
    const socket = open.get(keep);
    const local = socket.localPort;
    socket.end(); socket.resume();
    await once(socket, 'close');
    return local;
  },
  async refused({ host, port }) {
    const socket = connect({ host, port, localPort: 41999 });
    await once(socket, 'error').catch(() => {});
    return 41999;
  },
  async udp({ host, port, bytes }) {
    const socket = createSocket(host.includes(':') ? 'udp6' : 'udp4');
    socket.connect(port, host);
    await once(socket, 'connect');
    const local = socket.address().port;
    socket.send(Buffer.alloc(bytes, 122));
    await once(socket, 'message');
    socket.close();
    return local;
  },
  async burst({ host, fromPort, count }) {
    const socket = createSocket('udp4');
    socket.bind(0);
    await once(socket, 'listening');
    for (let i = 0; i < count; i++) await new Promise((done) => socket.send('x', fromPort + i, host, done));
    const local = socket.address().port;
    socket.close();
    return local;
  },
};
console.log('up');
for await (const line of createInterface({ input: process.stdin })) {
  const task = JSON.parse(line);
  console.log(JSON.stringify({ id: task.id, port: await tasks[task.do](task) }));
}
`;

/** Sums of all reports of one connection, and what a connection must be: begun once. */
interface Total {
  readonly begun: number;
  readonly bytesForward: number;
  readonly bytesReverse: number;
  readonly packetsForward: number;
  readonly packetsReverse: number;
  readonly last: ReceivedFlow;
}

function totalOf(flows: readonly ReceivedFlow[]): Total {
  const sum = (pick: (flow: ReceivedFlow) => number): number =>
    flows.reduce((all, flow) => all + pick(flow), 0);
  return {
    begun: sum((flow) => flow.connectionCount),
    bytesForward: sum((flow) => flow.bytesForward),
    bytesReverse: sum((flow) => flow.bytesReverse),
    packetsForward: sum((flow) => flow.packetsForward),
    packetsReverse: sum((flow) => flow.packetsReverse),
    last: flows.at(-1)!,
  };
}

/** The kernel's own counters of an entry, by the first text of a line that fits. */
function kernelCounters(host: string, needle: RegExp): number[] | null {
  const line = inHost(host, 'conntrack', '-L', '-o', 'extended')
    .split('\n')
    .find((text) => needle.test(text));
  if (line === undefined) return null;
  const figures = [...line.matchAll(/(packets|bytes)=(\d+)/g)].map((match) => Number(match[2]));
  return [figures[1]!, figures[3]!, figures[0]!, figures[2]!];
}

const obstacleHere = obstacle();
if (obstacleHere !== null && process.env.CI === 'true') {
  test('connections between real hosts are captured', () =>
    assert.fail(`must not be skipped in CI: ${obstacleHere}`));
}

describe('the conntrack agent', { skip: obstacleHere ?? false, timeout: 240_000 }, () => {
  const folder = temporaryFolder();
  const agents = new Map<string, AgentProcess>();
  const receivers = new Map<string, Receiver>();
  const children: ChildProcess[] = [];
  let ask: (task: Record<string, unknown>) => Promise<number>;

  const receiver = (host: string): Receiver => receivers.get(host)!;
  const settings = (host: string): Record<string, string | number> => ({
    ID: host,
    SOURCE: 'conntrack',
    INTERVAL_MS: 400,
    INGEST_URL: receiver(host).url,
    EXCLUDE_PORTS: receiver(host).port,
    TOKEN: 'secret-of-the-test',
  });
  const launch = async (host: string, more: Record<string, string | number> = {}): Promise<AgentProcess> => {
    const agent = startAgent({
      namespace: host,
      dataDir: `${folder.path}/${host}`,
      settings: { ...settings(host), ...more },
    });
    agents.set(host, agent);
    await agent.watching();
    return agent;
  };
  /** Flows of one connection as one host's agent told them. */
  const told = (host: string, fits: (flow: ReceivedFlow) => boolean): ReceivedFlow[] =>
    receiver(host).flows().filter(fits);

  before(async () => {
    for (const host of hosts) receivers.set(host, await startReceiver({ namespace: host }));
    const serving = startProgram(serverProgram, { namespace: server });
    const asking = startProgram(clientProgram, { namespace: client });
    children.push(serving, asking);
    await firstLine(serving, () => undefined);
    const answers = new Map<number, number>();
    let errors = '';
    asking.stderr?.on('data', (text) => {
      errors += String(text);
    });
    await firstLine(asking, (line) => {
      const answer = JSON.parse(line) as { id: number; port: number };
      answers.set(answer.id, answer.port);
    });
    let lastId = 0;
    ask = async (task) => {
      const id = ++lastId;
      asking.stdin?.write(`${JSON.stringify({ id, ...task })}\n`);
      return until(`the client did ${JSON.stringify(task)}; it said ${errors}`, 10_000, () =>
        answers.get(id),
      );
    };
    for (const host of hosts) await launch(host);
  });

  after(async () => {
    for (const agent of agents.values()) await agent.kill();
    for (const child of children) await endProcess(child);
    for (const one of receivers.values()) await one.stop();
    if (obstacleHere === null) removeHosts();
    folder.remove();
  });

  test('each connection is found exactly once on every host it passes, with the bytes the kernel counted', async () => {
    const sides = [
      [client, 'source'],
      [router, 'middle'],
      [server, 'destination'],
    ] as const;
    const cases = [
      { do: 'tcp', host: '10.77.2.2', port: 8080, bytes: 50_000, protocol: 6, name: 'tcp' },
      { do: 'tcp', host: 'fd77:2::2', port: 8081, bytes: 70_000, protocol: 6, name: 'tcp' },
      { do: 'udp', host: '10.77.2.2', port: 8080, bytes: 900, protocol: 17, name: 'udp' },
      { do: 'udp', host: 'fd77:2::2', port: 8081, bytes: 800, protocol: 17, name: 'udp' },
    ];
    for (const one of cases) {
      const port = await ask(one);
      const isIt = (flow: ReceivedFlow): boolean =>
        flow.protocol === one.protocol && flow.sourcePort === port && flow.destinationPort === one.port;
      for (const [host, side] of sides) {
        const wanted = new RegExp(`${one.name} .*dst=${one.host} sport=${port} dport=${one.port} `);
        const total = await until(`${side} of ${JSON.stringify(one)} with all bytes`, 10_000, () => {
          const flows = told(host, isIt);
          if (flows.length === 0) return null;
          const { begun, ...sums } = totalOf(flows);
          const kernel = kernelCounters(host, wanted);
          const own = [sums.bytesForward, sums.bytesReverse, sums.packetsForward, sums.packetsReverse];
          assert.ok(kernel !== null, 'the entry is still there');
          for (const [index, figure] of own.entries()) {
            assert.ok(figure <= kernel[index]!, `${side} told more than the kernel counted`);
          }
          return own.every((figure, index) => figure === kernel[index]) ? { begun, ...sums } : null;
        });
        assert.equal(total.begun, 1, `${side} begun`);
        assert.equal(total.last.reporter, side);
        assert.equal(total.last.destination, one.host);
        assert.equal(total.last.original, '');
        assert.ok(total.bytesForward > one.bytes && total.bytesReverse > one.bytes, 'payload and headers');
        if (one.do === 'tcp') assert.equal(total.last.state, 'closed');
        else assert.ok(['open', 'closed'].includes(total.last.state));
        assert.ok(Math.abs(Date.now() - total.last.endMs) < 30_000);
      }
    }
  });

  test('a ping of either family is one flow with its type', async () => {
    for (const [host, protocol, type] of [
      ['10.77.2.2', 1, 8],
      ['fd77:2::2', 58, 128],
    ] as const) {
      inHost(client, 'ping', '-c', '2', '-i', '0.2', '-q', host);
      for (const at of hosts) {
        const isIt = (flow: ReceivedFlow): boolean => flow.protocol === protocol && flow.destination === host;
        const total = await until(`the ping of ${host} at ${at}`, 10_000, () => {
          const flows = told(at, isIt);
          return flows.length > 0 && totalOf(flows).packetsReverse === 2 ? totalOf(flows) : null;
        });
        assert.equal(total.begun, 1);
        assert.equal(total.packetsForward, 2);
        assert.equal(total.last.flags, type * 256);
        assert.equal(total.last.sourcePort, 0);
        assert.equal(total.last.destinationPort, type * 256);
      }
    }
  });

  test('a connection to a service address shows both that address and the real one', async () => {
    const port = await ask({ do: 'tcp', host: '10.96.0.10', port: 80, bytes: 1000 });
    const flows = await until('the translated connection', 10_000, () => {
      const found = told(client, (flow) => flow.protocol === 6 && flow.sourcePort === port);
      return found.at(-1)?.state === 'closed' ? found : null;
    });
    const total = totalOf(flows);
    assert.equal(total.begun, 1);
    assert.equal(`${total.last.destination}:${total.last.destinationPort}`, '10.77.2.2:8080');
    assert.equal(total.last.original, '10.96.0.10:80');
    assert.equal(total.last.reporter, 'source');
    const arrived = await until('its arrival', 10_000, () =>
      told(server, (flow) => flow.protocol === 6 && flow.sourcePort === port).at(-1),
    );
    assert.equal(arrived.original, '');
    assert.equal(arrived.reporter, 'destination');
  });

  test('a refused connection is told as refused, with its one packet each way', async () => {
    const port = await ask({ do: 'refused', host: '10.77.2.2', port: 9 });
    for (const host of hosts) {
      const total = await until(`the refusal at ${host}`, 10_000, () => {
        const flows = told(host, (flow) => flow.protocol === 6 && flow.sourcePort === port);
        return flows.length > 0 && flows.at(-1)!.state === 'refused' ? totalOf(flows) : null;
      });
      assert.equal(total.begun, 1);
      assert.equal(total.packetsForward, 1);
      assert.equal(total.packetsReverse, 1);
    }
  });

  test('a long connection is told again only with news, and counts once though its agent is killed', async () => {
    const port = await ask({ do: 'tcp', host: '10.77.2.2', port: 8080, bytes: 100, keep: 'long' });
    const isIt = (flow: ReceivedFlow): boolean => flow.protocol === 6 && flow.sourcePort === port;
    await until('the first report', 10_000, () => told(client, isIt).find((flow) => flow.state === 'open'));
    const batchesThen = receiver(router).batches.length;
    await ask({ do: 'send', keep: 'long', bytes: 2000 });
    await until('the second report', 10_000, () =>
      told(client, isIt).find((flow) => flow.connectionCount === 0 && flow.bytesForward > 2000),
    );
    const reportsThen = told(client, isIt).length;
    await agents.get(client)!.kill();
    await ask({ do: 'send', keep: 'long', bytes: 4000 });
    const unwatched = await ask({ do: 'tcp', host: '10.77.2.2', port: 8080, bytes: 500 });
    await launch(client);
    await ask({ do: 'send', keep: 'long', bytes: 3000 });
    await ask({ do: 'end', keep: 'long' });
    await until('the end', 10_000, () => (told(client, isIt).at(-1)?.state === 'closed' ? true : null));
    // Nothing of its sums may be missing: neither at the router, nor at the client, whose agent died meanwhile.
    for (const host of [router, client]) {
      const total = await until(`all bytes at ${host}`, 10_000, () => {
        const sums = totalOf(told(host, isIt));
        const kernel = kernelCounters(host, new RegExp(`tcp .*sport=${port} dport=8080 `));
        return kernel !== null && sums.bytesForward === kernel[0] && sums.bytesReverse === kernel[1]
          ? sums
          : null;
      });
      assert.equal(total.begun, 1, host);
      assert.equal(total.last.state, 'closed', host);
    }
    assert.ok(told(client, isIt).length > reportsThen);
    const meanwhile = totalOf(told(client, (flow) => flow.protocol === 6 && flow.sourcePort === unwatched));
    assert.equal(meanwhile.begun, 1, 'a connection that came and went while no agent ran');
    assert.ok(meanwhile.bytesForward > 500);
    assert.ok(receiver(router).batches.length > batchesThen);
  });

  test('events the kernel had to drop are counted, and a dump finds their connections all the same', async () => {
    await agents.get(client)!.stop();
    const agent = await launch(client, { CONNTRACK_BUFFER_BYTES: 4096, INTERVAL_MS: 2000 });
    const watcher = conntrackChild(agent.pid);
    const batchesThen = receiver(client).batches.length;
    process.kill(watcher, 'SIGSTOP');
    const port = await ask({ do: 'burst', host: '10.77.2.2', fromPort: 20_000, count: 300 });
    process.kill(watcher, 'SIGCONT');
    const isIt = (flow: ReceivedFlow): boolean => flow.protocol === 17 && flow.sourcePort === port;
    await until('all of them', 15_000, () => {
      const ports = new Set(told(client, isIt).map((flow) => flow.destinationPort));
      return ports.size === 300 ? true : null;
    });
    assert.equal(totalOf(told(client, isIt)).begun, 300);
    await until('the loss is told', 10_000, () =>
      receiver(client)
        .batches.slice(batchesThen)
        .some((batch) => batch.sourceDroppedCount > 0)
        ? true
        : null,
    );
  });

  test('the event stream is started again when it dies, and what happened meanwhile is found', async () => {
    const agent = await launchAnew(router);
    process.kill(conntrackChild(agent.pid), 'SIGKILL');
    const port = await ask({ do: 'tcp', host: '10.77.2.2', port: 8080, bytes: 10 });
    const isIt = (flow: ReceivedFlow): boolean => flow.protocol === 6 && flow.sourcePort === port;
    await until('the connection of that moment', 10_000, () => told(router, isIt).at(-1));
    await until('a new stream', 10_000, () => (childrenOf(agent.pid).length > 0 ? true : null));
    assert.ok(agent.log.some((line) => String(line.msg).includes('started again')));
    const later = await ask({ do: 'tcp', host: '10.77.2.2', port: 8080, bytes: 10 });
    await until('a connection after it', 10_000, () =>
      told(router, (flow) => flow.sourcePort === later).at(-1),
    );
    assert.equal(totalOf(told(router, isIt)).begun, 1);
  });

  test('every batch carries the token, and sequences have no gap', () => {
    for (const host of hosts) {
      const { batches } = receiver(host);
      assert.ok(batches.every((batch) => batch.authorization === 'Bearer secret-of-the-test'));
      const boots = Map.groupBy(batches, (batch) => batch.bootId);
      for (const ofBoot of boots.values()) {
        assert.deepEqual(
          [...new Set(ofBoot.map((batch) => batch.sequence))],
          Array.from({ length: ofBoot.at(-1)!.sequence }, (_, index) => index + 1),
        );
      }
    }
  });

  async function launchAnew(host: string): Promise<AgentProcess> {
    await agents.get(host)!.stop();
    return launch(host);
  }
});

function childrenOf(pid: number): number[] {
  return readdirSync('/proc').flatMap((name) => {
    if (!/^\d+$/.test(name)) return [];
    try {
      const stat = readFileSync(`/proc/${name}/stat`, 'utf8');
      const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      return Number(fields[1]) === pid ? [Number(name)] : [];
    } catch {
      return [];
    }
  });
}

/** The `conntrack -E` of an agent: `ip netns exec` becomes the agent itself, so it is its child. */
function conntrackChild(agentPid: number): number {
  const found = childrenOf(agentPid).find((pid) =>
    readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('-E'),
  );
  assert.ok(found !== undefined, 'the agent watches events');
  return found;
}

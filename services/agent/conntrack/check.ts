/** Finds out whether connection tracking can be watched here. */
import { execFile } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { promisify } from 'node:util';
import type { SourceUnavailable } from '../sources/source.ts';

const run = promisify(execFile);

/** How long one call of the program may take, ms. */
const callTimeoutMs = 5000;

export interface ConntrackAbility {
  /** Byte and packet counters are kept. */
  readonly accounting: boolean;
  /** Start times are kept. */
  readonly timestamps: boolean;
}

function sysctl(name: string): string | null {
  try {
    return readFileSync(`/proc/sys/net/netfilter/${name}`, 'utf8').trim();
  } catch {
    return null;
  }
}

/** Sends one datagram from this process to itself, on loopback: where connections are tracked it makes an entry. */
async function makeOneConnection(): Promise<void> {
  const socket = createSocket('udp4');
  try {
    socket.bind(0, '127.0.0.1');
    await once(socket, 'listening');
    socket.send('', socket.address().port, '127.0.0.1');
    await once(socket, 'message', { signal: AbortSignal.timeout(1000) });
  } finally {
    socket.close();
  }
}

async function isTracking(): Promise<boolean> {
  const entries = (): number => Number(sysctl('nf_conntrack_count') ?? 0);
  if (entries() > 0) return true;
  await makeOneConnection().catch(() => undefined);
  return entries() > 0;
}

function unavailable(command: string, error: unknown): SourceUnavailable {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  if (code === 'ENOENT') {
    return {
      reason: 'not-installed',
      message: `the program '${command}' is not installed: install the package conntrack (conntrack-tools)`,
    };
  }
  const said =
    error instanceof Error && 'stderr' in error
      ? String(error.stderr).trim().split('\n').at(-1)
      : String(error);
  return {
    reason: 'not-permitted',
    message: `connection tracking may not be watched: run the agent as root or grant it CAP_NET_ADMIN (${said})`,
  };
}

/** Asks the program and the kernel. The state is that of this process' network namespace. */
export async function checkConntrack(command: string): Promise<ConntrackAbility | SourceUnavailable> {
  if (process.platform !== 'linux')
    return { reason: 'not-supported', message: 'conntrack is a part of Linux' };
  try {
    await run(command, ['-C'], { timeout: callTimeoutMs });
  } catch (error) {
    return unavailable(command, error);
  }
  if (!(await isTracking())) {
    return {
      reason: 'not-tracking',
      message:
        'the kernel tracks no connections in this network namespace: load a firewall rule that asks for their state (for example nft: ct state established accept)',
    };
  }
  return {
    accounting: sysctl('nf_conntrack_acct') === '1',
    timestamps: sysctl('nf_conntrack_timestamp') === '1',
  };
}

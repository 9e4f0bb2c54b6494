/** Keeps one service running: starts it again when it dies, wakes it when it has frozen itself. */
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { type ServiceProcess, startService } from '../support/service-process.ts';

const pollMs = 40;

/** State letter of a process as the kernel says it; `X` when it is gone. */
function stateOf(pid: number): string {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return stat.slice(stat.lastIndexOf(')') + 2)[0] ?? 'X';
  } catch {
    return 'X';
  }
}

export interface KeeperOptions {
  readonly name: string;
  readonly settings: Readonly<Record<string, string>>;
  /** For the first start only: see lib/runtime/failpoint.ts. */
  readonly failpoints: string;
  /** More arguments of Node. */
  readonly nodeArguments?: readonly string[];
  /** How long it stays frozen when it was stopped, ms. */
  readonly freezeMs: number;
}

export class Keeper {
  readonly #options: KeeperOptions;
  #process: ServiceProcess | undefined;
  #closed = false;
  #starting: Promise<void> | undefined;
  #loop: Promise<void> | undefined;
  #said = '';
  /** Deaths and freezes that were seen. */
  readonly events: string[] = [];

  constructor(options: KeeperOptions) {
    this.#options = options;
  }

  async start(): Promise<void> {
    this.#starting = this.#spawn(this.#options.failpoints);
    await this.#starting;
    this.#loop = this.#keep();
  }

  get probes(): string {
    return this.#process?.probes ?? '';
  }

  /** Everything that its processes have said. */
  get output(): string {
    return this.#said + (this.#process?.output() ?? '');
  }

  async #spawn(failpoints: string): Promise<void> {
    this.#said += this.#process?.output() ?? '';
    const { name, settings, nodeArguments = [] } = this.#options;
    const more: Record<string, string> = failpoints === '' ? {} : { EASTWEST_FAILPOINTS: failpoints };
    this.#process = await startService(name, { ...settings, ...more }, nodeArguments);
  }

  async #keep(): Promise<void> {
    while (!this.#closed) {
      const pid = this.#process?.pid ?? 0;
      const state = stateOf(pid);
      if (state === 'T') {
        this.events.push('froze');
        await sleep(this.#options.freezeMs);
        if (stateOf(pid) === 'T') process.kill(pid, 'SIGCONT');
      } else if ((state === 'X' || state === 'Z') && !this.#closed) {
        this.events.push('died');
        // Without the stores it needs it may end again: that is its right.
        await this.#spawn('').catch(() => undefined);
      }
      await sleep(pollMs);
    }
  }

  signal(signal: NodeJS.Signals): void {
    const pid = this.#process?.pid ?? 0;
    if (pid > 0 && stateOf(pid) !== 'X') process.kill(pid, signal);
  }

  /** Lets it end in order (or not), for good. */
  async close(orderly: boolean): Promise<void> {
    this.#closed = true;
    await this.#starting?.catch(() => undefined);
    await this.#loop;
    if (orderly) await this.#process?.stop();
    else await this.#process?.kill();
  }
}

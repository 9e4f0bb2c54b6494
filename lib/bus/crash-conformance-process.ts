/** A process for `crash-conformance.ts` to kill: a writer or a group member, told what to do in its first argument. */
import pino from 'pino';
import type { Bus, BusMessage } from './bus.ts';
import { type BusConfig, busConfig } from './config.ts';
import { outgoing, RecordingMember, text } from './conformance-support.ts';
import { openBus } from './open.ts';

export interface ProcessTask {
  readonly role: 'write-once' | 'write-on' | 'member';
  readonly settings: Partial<BusConfig>;
  readonly dataDir: string;
  readonly topic: string;
  readonly group: string;
}

/** What the process says. */
export type ProcessReport =
  | { readonly what: 'held'; readonly partitions: readonly number[] }
  | { readonly what: 'received'; readonly values: readonly (string | null)[] }
  | { readonly what: 'written'; readonly value: string }
  | { readonly what: 'committed'; readonly partition: number; readonly failure: string | null };

/** What it can be asked for: a commit by what was begun when the partition was first assigned. */
export interface CommitRequest {
  readonly partition: number;
  readonly offset: number;
}

function isCommitRequest(message: unknown): message is CommitRequest {
  return typeof message === 'object' && message !== null && 'partition' in message && 'offset' in message;
}

function report(message: ProcessReport): void {
  process.send?.(message);
}

async function writeOnce(bus: Bus, topic: string): Promise<void> {
  await bus.append(topic, [outgoing('k', 'durable')]);
  // No chance to write anything after the promise has resolved.
  process.kill(process.pid, 'SIGKILL');
}

async function writeOn(bus: Bus, topic: string): Promise<void> {
  for (let number = 0; ; number++) {
    await bus.append(topic, [outgoing('k', `${number}`)]);
    report({ what: 'written', value: `${number}` });
  }
}

class ReportingMember extends RecordingMember {
  override async messages(
    at: { topic: string; partition: number },
    messages: readonly BusMessage[],
  ): Promise<void> {
    await super.messages(at, messages);
    report({ what: 'received', values: messages.map(text) });
  }

  override async assigned(...args: Parameters<RecordingMember['assigned']>): Promise<number> {
    const offset = await super.assigned(...args);
    report({ what: 'held', partitions: [...this.held] });
    return offset;
  }

  override revoked(at: { topic: string; partition: number }): void {
    super.revoked(at);
    report({ what: 'held', partitions: [...this.held] });
  }
}

async function beMember(bus: Bus, topic: string, group: string): Promise<void> {
  const member = await new ReportingMember().join(bus, group, topic);
  process.on('message', (message: unknown) => {
    if (!isCommitRequest(message)) return;
    const { partition, offset } = message;
    const lease = member.leases.get(partition)?.[0];
    if (lease === undefined) throw new Error(`partition ${partition} was never assigned`);
    lease.commit({ offset, metadata: '' }).then(
      () => report({ what: 'committed', partition, failure: null }),
      (error: unknown) =>
        report({
          what: 'committed',
          partition,
          failure: error instanceof Error ? error.name : String(error),
        }),
    );
  });
}

/** Does the task until it is killed. */
export async function runTask(task: ProcessTask): Promise<void> {
  const log = pino({ level: 'silent' });
  const bus = await openBus(busConfig(task.settings), {
    dataDir: task.dataDir,
    log,
    clientId: `${process.pid}`,
  });
  process.once('disconnect', () => process.exit(0));
  switch (task.role) {
    case 'write-once':
      return writeOnce(bus, task.topic);
    case 'write-on':
      return writeOn(bus, task.topic);
    case 'member':
      return beMember(bus, task.topic, task.group);
  }
}

if (import.meta.main) await runTask(JSON.parse(process.argv[2] ?? ''));

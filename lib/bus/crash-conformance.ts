/** What every bus must do when processes die or freeze at any moment: run over each implementation, with real ones. */
import assert from 'node:assert/strict';
import { type ChildProcess, fork } from 'node:child_process';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { BusConfig } from './config.ts';
import {
  type BusUnderTest,
  makeGroup,
  makeTopic,
  outgoing,
  RecordingMember,
  until,
} from './conformance-support.ts';
import type { CommitRequest, ProcessReport, ProcessTask } from './crash-conformance-process.ts';

const program = fileURLToPath(new URL('./crash-conformance-process.ts', import.meta.url));

export interface CrashTestBus extends BusUnderTest {
  /** How other processes open the same bus. */
  readonly settings: Partial<BusConfig>;
  readonly dataDir: string;
}

/** Runs the suite; `makeBus` is called once. */
export function crashConformance(name: string, makeBus: () => Promise<CrashTestBus>): void {
  describe(`${name}, with processes that die`, () => {
    let made: CrashTestBus;
    const children: Child[] = [];
    before(async () => {
      made = await makeBus();
    });
    after(async () => {
      for (const child of children) await child.kill();
      await made.close();
    });
    const start = (role: ProcessTask['role'], topic: string, group = 'none'): Child => {
      const child = new Child({ role, topic, group, settings: made.settings, dataDir: made.dataDir });
      children.push(child);
      return child;
    };

    test('a message is there although its writer is killed right after the append resolved', async () => {
      const topic = await makeTopic(made.bus);
      for (let round = 1; round <= 3; round++) {
        await start('write-once', topic).exited;
        const positions = await made.bus.positions(topic, 'none');
        assert.equal(
          positions.reduce((sum, { next }) => sum + next, 0),
          round,
        );
      }
    });

    test('all that was acknowledged is there, in order, although the writer is killed while it writes', async () => {
      const topic = await makeTopic(made.bus);
      const writer = start('write-on', topic);
      await until('some messages', () => writer.written.length >= 50);
      await writer.kill();
      await made.bus.append(topic, [outgoing('k', 'end')]);
      const reader = await new RecordingMember().join(made.bus, makeGroup(), topic);
      await until('the end', () => reader.texts().at(-1) === 'end');
      await reader.leave();
      const texts = reader.texts().slice(0, -1);
      assert.deepEqual(
        texts,
        texts.map((_, number) => `${number}`),
      );
      assert.ok(texts.length >= writer.written.length, `${texts.length} of ${writer.written.length}`);
    });

    test('the partitions of a killed member go to another, which begins where the group stood', async () => {
      const topic = await makeTopic(made.bus, { partitionCount: 2 });
      const group = makeGroup();
      const doomed = start('member', topic, group);
      await until('it holds both', () => doomed.held.length === 2);
      await made.bus.append(
        topic,
        Array.from({ length: 20 }, (_, number) => outgoing(`${number}`, `${number}`)),
      );
      await until('it has received all', () => doomed.received.length === 20);
      assert.equal(await doomed.commit({ partition: 0, offset: 2 }), null);
      await doomed.kill();
      const survivor = await new RecordingMember().join(made.bus, group, topic);
      await until('the survivor holds both', () => survivor.held.size === 2);
      await until('it has received what was not committed', () => survivor.received.length >= 18);
      await survivor.leave();
      assert.equal(survivor.received.length, 18);
    });

    test('a frozen member loses its partitions and is fenced when it comes back', async () => {
      const topic = await makeTopic(made.bus, { partitionCount: 2 });
      const group = makeGroup();
      const frozen = start('member', topic, group);
      await until('it holds both', () => frozen.held.length === 2);
      frozen.signal('SIGSTOP');
      const other = await new RecordingMember().join(made.bus, group, topic);
      await until('the other holds both', () => other.held.size === 2);
      await other.commit(topic, 0, 0, 'mine');
      const failure = frozen.commit({ partition: 0, offset: 1 });
      frozen.signal('SIGCONT');
      assert.equal(await failure, 'FencedError');
      assert.deepEqual((await made.bus.positions(topic, group))[0]?.committed, {
        offset: 0,
        metadata: 'mine',
      });
      await until('it takes part again', () => frozen.held.length === 1 && other.held.size === 1);
      await other.leave();
    });
  });
}

/** A process of `crash-conformance-process.ts`, and what it has said. */
class Child {
  readonly exited: Promise<void>;
  held: readonly number[] = [];
  readonly received: (string | null)[] = [];
  readonly written: string[] = [];
  readonly #process: ChildProcess;
  readonly #commits: ((failure: string | null) => void)[] = [];

  constructor(task: ProcessTask) {
    this.#process = fork(program, [JSON.stringify(task)], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
    this.exited = new Promise((resolve) => this.#process.once('exit', () => resolve()));
    this.#process.on('message', (message: ProcessReport) => this.#note(message));
  }

  /** Resolves with the name of the error, or null. */
  commit(request: CommitRequest): Promise<string | null> {
    return new Promise((resolve) => {
      this.#commits.push(resolve);
      this.#process.send(request);
    });
  }

  signal(signal: NodeJS.Signals): void {
    this.#process.kill(signal);
  }

  async kill(): Promise<void> {
    this.#process.kill('SIGKILL');
    await this.exited;
  }

  #note(message: ProcessReport): void {
    switch (message.what) {
      case 'held':
        this.held = message.partitions;
        return;
      case 'received':
        this.received.push(...message.values);
        return;
      case 'written':
        this.written.push(message.value);
        return;
      case 'committed':
        this.#commits.shift()?.(message.failure);
    }
  }
}

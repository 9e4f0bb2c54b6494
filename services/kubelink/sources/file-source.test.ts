import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import pino from 'pino';
import { Value } from 'typebox/value';
import { KubelinkConfig, type ManifestsSource } from '../config.ts';
import { keepUnreadable } from './file-source.ts';
import { manifestsSource } from './manifests.ts';
import { type Source, type SourceSink, unrestored } from './source.ts';

const deadlineMs = 10_000;

/** Hears a source and lets a test wait for what it said last. */
class Listener implements SourceSink {
  /** Names of workloads, as of the newest snapshot. */
  names: string[] = [];
  podCidrs: readonly string[] = [];
  current: readonly string[] = [];
  failures: string[] = [];
  snapshotCount = 0;
  #wake = Promise.withResolvers<void>();

  snapshot: SourceSink['snapshot'] = (events) => {
    this.snapshotCount++;
    this.names = events.flatMap((event) => (event.type === 'workload' ? [event.name] : [])).sort();
    for (const event of events) if (event.type === 'cluster') this.podCidrs = event.podCidrs;
    this.#changed();
  };
  change: SourceSink['change'] = () => assert.fail('a file source tells everything at once');
  gone: SourceSink['gone'] = () => assert.fail('a file source tells everything at once');
  ignored: SourceSink['ignored'] = () => {};
  problems: SourceSink['problems'] = (current) => {
    this.current = current;
  };
  failing: SourceSink['failing'] = (reason) => {
    this.failures.push(reason);
    this.#changed();
  };

  #changed(): void {
    this.#wake.resolve();
    this.#wake = Promise.withResolvers();
  }

  async until(condition: () => boolean, what: string): Promise<void> {
    const late = AbortSignal.timeout(deadlineMs);
    const isLate = new Promise<void>((resolve) => late.addEventListener('abort', () => resolve()));
    while (!condition()) {
      if (late.aborted)
        assert.fail(`not within ${deadlineMs} ms: ${what}; last: ${JSON.stringify(this.names)}`);
      await Promise.race([this.#wake.promise, isLate]);
    }
  }
}

function podText(name: string, ip = '10.1.0.1'): string {
  return `kind: Pod\nmetadata: { name: ${name}, uid: ${name} }\nstatus: { podIPs: [{ ip: ${ip} }] }\n`;
}

let folder: string;
let source: Source | undefined;
let listener: Listener;

/** `rescanMs` of an hour leaves everything to the watch of the operating system. */
function start(path: string, rescanMs = 50): void {
  const config = { ...Value.Create(KubelinkConfig), debounceMs: 10, rescanMs, maxFileBytes: 10_000 };
  const manifests: ManifestsSource = {
    kind: 'manifests',
    path,
    cluster: 'east',
    podCidrs: [],
    serviceCidrs: [],
  };
  source = manifestsSource('a', manifests, config, pino({ level: 'silent' }));
  source.start(listener, unrestored);
}

/** Puts a file in place in one step, as careful writers do. */
function place(name: string, text: string): void {
  const draft = join(folder, '.draft');
  writeFileSync(draft, text);
  renameSync(draft, join(folder, name));
}

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'eastwest-files-'));
  listener = new Listener();
  source = undefined;
});

afterEach(async () => {
  await source?.stop();
  rmSync(folder, { recursive: true, force: true });
});

describe('a folder of manifests', () => {
  test('is read with its subfolders, without hidden files and other kinds of files', async () => {
    mkdirSync(join(folder, 'deep', 'er'), { recursive: true });
    mkdirSync(join(folder, '..2026_01_01'));
    writeFileSync(join(folder, '..2026_01_01', 'mounted.yaml'), podText('mounted'));
    symlinkSync(join('..2026_01_01', 'mounted.yaml'), join(folder, 'mounted.yaml'));
    writeFileSync(join(folder, 'a.yaml'), podText('a'));
    writeFileSync(join(folder, 'deep', 'er', 'b.yml'), podText('b'));
    writeFileSync(join(folder, 'deep', 'c.json'), JSON.stringify({ kind: 'Pod', metadata: { name: 'c' } }));
    writeFileSync(join(folder, 'notes.txt'), 'not a manifest');
    writeFileSync(join(folder, '.swap.yaml'), podText('hidden'));
    start(folder);
    await listener.until(() => listener.snapshotCount > 0, 'first reading');
    assert.deepEqual(listener.names, ['a', 'b', 'c', 'mounted']);
    assert.deepEqual(listener.current, []);
  });

  test('tells a new, a changed and a removed file, by the watch alone', async () => {
    place('a.yaml', podText('a'));
    mkdirSync(join(folder, 'deep'));
    start(folder, 3_600_000);
    await listener.until(() => listener.names.join() === 'a', 'first reading');
    place('b.yaml', podText('b'));
    await listener.until(() => listener.names.join() === 'a,b', 'a file that came');
    place('b.yaml', podText('b2'));
    await listener.until(() => listener.names.join() === 'a,b2', 'a file that changed');
    place(join('deep', 'c.yaml'), podText('c'));
    await listener.until(() => listener.names.join() === 'a,b2,c', 'a file in a subfolder');
    rmSync(join(folder, 'a.yaml'));
    await listener.until(() => listener.names.join() === 'b2,c', 'a file that went');
  });

  test('a file that is only half written takes nothing away, and counts when it is whole', async () => {
    const list = JSON.stringify({
      kind: 'List',
      items: ['a', 'b'].map((name) => ({ kind: 'Pod', metadata: { name } })),
    });
    place('list.json', list);
    start(folder);
    await listener.until(() => listener.names.join() === 'a,b', 'first reading');
    writeFileSync(join(folder, 'list.json'), list.slice(0, list.length / 2));
    await listener.until(() => listener.current.length === 1, 'the problem is told');
    assert.match(listener.current[0] ?? '', /list\.json: document 1 \(line 1\): not valid JSON/);
    assert.deepEqual(listener.names, ['a', 'b']);
    writeFileSync(join(folder, 'list.json'), list.replace('"b"', '"c"'));
    await listener.until(() => listener.current.length === 0, 'the problem is over');
    assert.deepEqual(listener.names, ['a', 'c']);
  });

  test('a malformed document keeps its own last truth, while the others of its file change', async () => {
    place('pods.yaml', `${podText('a')}---\n${podText('b')}---\n${podText('c')}`);
    start(folder);
    await listener.until(() => listener.names.join() === 'a,b,c', 'first reading');
    place('pods.yaml', `${podText('a', '10.1.0.999')}---\n${podText('d')}`);
    await listener.until(() => listener.names.join() === 'a,d', 'the change');
    assert.match(
      listener.current[0] ?? '',
      /pods\.yaml: document 1 \(line 1\): Pod\/default\/a: status\.podIPs\[0\]\.ip/,
    );
  });

  test('a folder that is not there for a while ends nothing', async () => {
    const inner = join(folder, 'mounted');
    mkdirSync(inner);
    writeFileSync(join(inner, 'a.yaml'), podText('a'));
    start(inner);
    await listener.until(() => listener.names.join() === 'a', 'first reading');
    renameSync(inner, join(folder, 'away'));
    await listener.until(() => listener.failures.length > 0, 'the failure is told');
    assert.match(listener.failures[0] ?? '', /mounted cannot be read/);
    const before = listener.snapshotCount;
    renameSync(join(folder, 'away'), inner);
    await listener.until(() => listener.snapshotCount > before, 'it is back');
    assert.deepEqual(listener.names, ['a']);
  });

  test('a file over the size limit is a problem of its own', async () => {
    place('a.yaml', podText('a'));
    place('big.yaml', `# ${'x'.repeat(10_000)}\n`);
    start(folder);
    await listener.until(() => listener.snapshotCount > 0, 'first reading');
    assert.deepEqual(listener.names, ['a']);
    assert.match(
      listener.current[0] ?? '',
      /big\.yaml: \d+ bytes, more than 10000 \(kubelink\.maxFileBytes\)/,
    );
  });

  test('the pod ranges that its nodes name are those of the cluster', async () => {
    place(
      'nodes.yaml',
      ['a', 'b']
        .map((name, i) => `kind: Node\nmetadata: { name: ${name} }\nspec: { podCIDR: 10.1.${i}.0/24 }\n`)
        .join('---\n'),
    );
    start(folder);
    await listener.until(() => listener.names.length === 2, 'first reading');
    assert.deepEqual(listener.podCidrs, ['10.1.0.0/24', '10.1.1.0/24']);
  });
});

test('a single file is followed when another is renamed onto it, and its absence ends nothing', async () => {
  place('a.yaml', podText('a'));
  start(join(folder, 'a.yaml'), 3_600_000);
  await listener.until(() => listener.names.join() === 'a', 'first reading');
  place('a.yaml', podText('b'));
  await listener.until(() => listener.names.join() === 'b', 'the change');
  rmSync(join(folder, 'a.yaml'));
  await listener.until(() => listener.failures.length > 0, 'the failure is told');
  assert.deepEqual(listener.names, ['b']);
});

test('where it cannot be told what a broken part speaks of, nothing of the file is taken as gone', () => {
  const entity = (name: string) => ({
    event: { v: 1, type: 'namespace', cluster: 'east', name, labels: {}, annotations: {} } as const,
    podCidrs: [],
  });
  const before = {
    entities: new Map([
      ['a', entity('a')],
      ['b', entity('b')],
    ]),
    malformed: [],
    ignored: new Map(),
  };
  const now = {
    entities: new Map([['a', entity('a2')]]),
    malformed: [{ ref: null, message: 'cut' }],
    ignored: new Map(),
  };
  const kept = keepUnreadable(before, now);
  assert.deepEqual(
    [...kept.entities].map(([ref, { event }]) => `${ref}=${event.type === 'namespace' && event.name}`),
    ['a=a2', 'b=b'],
  );
  assert.deepEqual([...keepUnreadable(before, { ...now, malformed: [] }).entities.keys()], ['a']);
  assert.deepEqual(
    [...keepUnreadable(before, { ...now, malformed: [{ ref: 'c', message: 'x' }] }).entities.keys()],
    ['a'],
  );
});

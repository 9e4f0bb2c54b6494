import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { leavesOf, shapeOf } from '../lib/runtime/config-shape.ts';
import { environmentName } from '../lib/runtime/config-sources.ts';
import type { Sections } from '../lib/runtime/service.ts';
import { configReference, formatEntries } from './commands/config.ts';
import { sections } from './sections.ts';

const leaves = Object.entries(sections).flatMap(([name, schema]) => leavesOf(shapeOf(schema), [name]));

/** The sections of every process, from what its main exports. */
async function sectionsOfProcesses(): Promise<[string, Sections][]> {
  const modules = await Promise.all([
    import('../services/agent/main.ts'),
    import('../services/alert/main.ts'),
    import('../services/enrich/main.ts'),
    import('../services/ingest/main.ts'),
    import('../services/kubelink/main.ts'),
    import('../services/query/main.ts'),
    import('../estate/main.ts'),
    import('./processes/store.ts'),
    import('./processes/migrate.ts'),
  ]);
  return modules.map(({ service }) => [service.name, service.sections]);
}

describe('the table of configuration sections', () => {
  test('has the sections of every process', async () => {
    const known: Sections = sections;
    for (const [process, own] of await sectionsOfProcesses()) {
      for (const [name, schema] of Object.entries(own)) {
        assert.equal(known[name], schema, `section ${name} of ${process}`);
      }
    }
  });

  test('every setting has a meaning and, unless it may be absent, a default', () => {
    for (const { path, shape } of leaves) {
      assert.ok(shape.description, `${path.join('.')} has a description`);
      assert.notEqual(shape.default, undefined, `${path.join('.')} has a default`);
    }
  });

  test('no two settings share a variable', () => {
    const names = leaves.map(({ path }) => environmentName(path).replaceAll('_', ''));
    assert.deepEqual(names.toSorted(), [...new Set(names)].toSorted());
  });

  test('what is secret by its name is declared so', () => {
    for (const { path, shape } of leaves) {
      if (/(password|secret|token|tokens)$/i.test(path.at(-1) ?? '')) {
        assert.equal(shape.secret, true, `${path.join('.')} is secret`);
      }
    }
  });

  test('the reference names every setting with its variable', () => {
    const reference = configReference(sections);
    assert.equal(reference.length, leaves.length);
    const port = reference.find(({ key }) => key === 'store.embedded.httpPort');
    assert.equal(port?.environment, 'EASTWEST_STORE_EMBEDDED_HTTP_PORT');
  });

  test('the listing is aligned and cuts what is too long', () => {
    const lines = formatEntries([
      { key: 'a.b', value: 'x'.repeat(100), source: 'file', place: 'eastwest.yaml:1:2' },
      { key: 'a.longer', value: 5, source: 'default', place: '' },
    ]);
    assert.equal(lines[1]?.indexOf('x'), lines[2]?.indexOf('5'));
    assert.match(lines[1] ?? '', /x\.\.\. {2}file/);
  });
});

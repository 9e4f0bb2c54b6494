import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { checkLayout, importProblem } from './layout.ts';
import { folderRelations, libRelations } from './layout-rules.ts';

const service = (name: string, main = ''): [string, string][] =>
  ['config', 'main', 'metrics'].map((file) => [`services/${name}/${file}.ts`, file === 'main' ? main : '']);

/** Messages about a tree of these files, and of one service that is right. */
function problems(...files: [string, string][]): string[] {
  const tree = new Map([...service('agent'), ...files]);
  return checkLayout(tree).map(({ file, line, message }) => `${file}:${line}: ${message}`);
}

describe('the layout check', () => {
  test('a right tree has no problem', () => {
    const main = "import { open } from '../../lib/bus/open.ts';\n";
    assert.deepEqual(problems(...service('query', main), ['lib/bus/open.ts', '']), []);
  });

  test('a service that imports another service is found with its line', () => {
    const main = "import a from 'a';\nimport { x } from '../agent/config.ts';\n";
    const [first] = problems(...service('query', main));
    assert.match(first ?? '', /^services\/query\/main\.ts:2: service query may not import service agent/);
  });

  test('imports against the direction are found, however they are written', () => {
    for (const text of [
      "import { x } from '../../services/agent/config.ts';",
      "import type { X } from '../../services/agent/config.ts';",
      "import '../../services/agent/config.ts';",
      "export { x } from '../../services/agent/config.ts';",
      // In two parts, or the check would find it here.
      `const { x } = await im${"port('../../services/agent/config.ts')"};`,
      "import {\n  x,\n} from '../../services/agent/config.ts';",
    ]) {
      assert.match(problems(['lib/bus/a.ts', text])[0] ?? '', /lib may not import from services/, text);
    }
  });

  test('estate is imported by neither services nor lib', () => {
    assert.ok(importProblem('services/query/a.ts', 'estate/world.ts'));
    assert.ok(importProblem('lib/wire/a.ts', 'estate/world.ts'));
    assert.equal(importProblem('bench/a.ts', 'estate/world.ts'), undefined);
  });

  test('a lib room uses the foundations and what the table says, nothing else', () => {
    assert.equal(importProblem('lib/policy/a.ts', 'lib/net/address.ts'), undefined);
    assert.equal(importProblem('lib/policy/a.ts', 'lib/bus/bus.ts'), undefined);
    assert.match(importProblem('lib/bus/a.ts', 'lib/policy/engine.ts') ?? '', /libRelations/);
    assert.ok(importProblem('lib/net/a.ts', 'lib/runtime/log.ts'));
    assert.ok(importProblem('lib/runtime/a.ts', 'lib/net/address.ts'));
  });

  test('the tables have no circle', () => {
    for (const table of [libRelations, folderRelations]) {
      const visit = (name: string, path: readonly string[]): void => {
        assert.ok(!path.includes(name), `${[...path, name].join(' -> ')}`);
        for (const next of table[name] ?? []) {
          visit(next, [...path, name]);
        }
      };
      for (const name of Object.keys(table).filter((folder) => folder !== 'bench' && folder !== 'test')) {
        visit(name, []);
      }
    }
  });

  test('a test beside code that reaches for servers is found', () => {
    const text = "import { startKafka } from '../../test/support/kafka.ts';";
    assert.match(problems(['lib/bus/a.test.ts', text])[0] ?? '', /a test beside code starts no server/);
  });

  test('a file that is too long is found, and its limit is said', () => {
    assert.deepEqual(problems(['lib/bus/a.ts', '\n'.repeat(600)]), []);
    assert.match(problems(['lib/bus/a.ts', '\n'.repeat(601)])[0] ?? '', /601 lines, the limit is 600/);
  });

  test('residue is found', () => {
    assert.match(problems(['lib/bus/a.ts', '// TO' + 'DO: later'])[0] ?? '', /unfinished work/);
    assert.match(problems(['lib/bus/a.test.ts', 'test.only(() => 1);'])[0] ?? '', /with `only`/);
    assert.match(problems(['notes.txt', ''])[0] ?? '', /does not belong in the root/);
    assert.match(problems(['scratch/a.ts', ''])[0] ?? '', /scratch is no folder of this house/);
  });

  test('a part that reads the environment by itself is found', () => {
    assert.match(problems(['lib/bus/a.ts', 'const x = process.env.HOME;'])[0] ?? '', /only the runtime/);
  });

  test('a service that lacks one of its files is found', () => {
    assert.deepEqual(problems(['services/query/main.ts', ''], ['services/query/config.ts', '']), [
      'services/query:0: has no metrics.ts; every service has one',
    ]);
  });

  test('a lib room that no table knows is found', () => {
    assert.match(problems(['lib/extra/a.ts', ''])[0] ?? '', /lib\/extra is not in libRelations/);
  });

  test('a document that names a file that is not there is found, by link and by name', () => {
    const text = 'See `lib/bus/gone.ts`, [this](flow.md), [that](missing.md) and `services/agent`.';
    const found = problems(['docs/a.md', text], ['docs/flow.md', '']);
    assert.deepEqual(found, [
      'docs/a.md:1: names docs/missing.md, which does not exist',
      'docs/a.md:1: names lib/bus/gone.ts, which does not exist',
    ]);
  });
});

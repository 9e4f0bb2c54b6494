import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { csvRows } from '../../../lib/runtime/csv.ts';
import { readCsvHosts } from './hosts.ts';

const rowsOf = (text: string) => [...csvRows(text)];
const cellsOf = (text: string) => rowsOf(text).map(({ cells }) => cells);

test('any table that is written as RFC 4180 says is read back, whatever its line ends', () => {
  const cell = fc.string({
    unit: fc.constantFrom('a', 'b', ',', '"', '\n', '\r\n', ' ', ';', 'é', '='),
    maxLength: 6,
  });
  const table = fc.array(fc.array(cell, { minLength: 2, maxLength: 4 }), { minLength: 1, maxLength: 5 });
  const ends = fc.constantFrom('\n', '\r\n', '\r');
  fc.assert(
    fc.property(table, ends, fc.boolean(), fc.boolean(), (rows, end, hasMark, hasLastEnd) => {
      const quoted = (text: string): string =>
        /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
      const body = rows.map((row) => row.map(quoted).join(',')).join(end);
      const text = `${hasMark ? '\ufeff' : ''}${body}${hasLastEnd ? end : ''}`;
      assert.deepEqual(cellsOf(text), rows);
      assert.ok(rowsOf(text).every(({ problem }) => problem === ''));
    }),
  );
});

test('a row names the line it begins on, also after line breaks in quotes and empty lines', () => {
  assert.deepEqual(
    rowsOf('a,b\r\n"x\r\ny",1\r\n\r\nc,d').map(({ line, cells }) => [line, ...cells]),
    [
      [1, 'a', 'b'],
      [2, 'x\r\ny', '1'],
      [5, 'c', 'd'],
    ],
  );
});

test('a stray quote is a problem of its line alone; one that never closes leaves unclear what follows', () => {
  const rows = rowsOf('a"b,1\nc,2\n"d"e,3\nf,4\n"g,5\nh,6\n');
  assert.deepEqual(
    rows.map(({ line, problem, isUnclear }) => [line, problem !== '', isUnclear]),
    [
      [1, true, false],
      [2, false, false],
      [3, true, false],
      [4, false, false],
      [5, true, true],
    ],
  );
});

const head = 'name,id,kind,group,address,network,since,label.app,labels,annotation.eastwest.io/env\n';

test('a line is a host, with addresses, networks, labels and annotations', () => {
  const { entities, malformed } = readCsvHosts(
    `\ufeff${head}core-db-1,vm-4711,host,core-banking,10.20.0.5 198.51.100.5@default;2001:DB8::1,dc-west,2026-01-01T00:00:00Z,ledger,env=prod; loc=west,prod\r\n` +
      'jump,,,,10.0.0.9,,,,,\r\n',
  );
  assert.deepEqual(malformed, []);
  const sinceMs = Date.UTC(2026, 0, 1);
  const common = { v: 1, type: 'workload', cluster: '', node: '', hostNetwork: false } as const;
  assert.deepEqual(
    [...entities].map(([ref, { event }]) => [ref, event]),
    [
      [
        'hosts/vm-4711',
        {
          ...common,
          kind: 'host',
          uid: 'vm-4711',
          name: 'core-db-1',
          namespace: 'core-banking',
          labels: { app: 'ledger', env: 'prod', loc: 'west' },
          annotations: { 'eastwest.io/env': 'prod' },
          addresses: [
            { ip: '10.20.0.5', network: 'dc-west', sinceMs },
            { ip: '198.51.100.5', network: 'default', sinceMs },
            { ip: '2001:db8::1', network: 'dc-west', sinceMs },
          ],
          sinceMs,
        },
      ],
      [
        'hosts/jump',
        {
          ...common,
          kind: 'vm',
          uid: 'jump',
          name: 'jump',
          namespace: '',
          labels: {},
          annotations: {},
          addresses: [{ ip: '10.0.0.9', network: 'default', sinceMs: 0 }],
          sinceMs: 0,
        },
      ],
    ],
  );
});

const bad: readonly [string, string, string | null, RegExp][] = [
  [
    'an address that does not parse',
    'x,,,,10.0.0.1;10.0.0.256,,,,,',
    'hosts/x',
    /^line 2 \(x\): column address: "10\.0\.0\.256" is not an IP address$/,
  ],
  ['a kind that is none', 'x,,mainframe,,10.0.0.1,,,,,', 'hosts/x', /^line 2 \(x\): column kind: /],
  ['a time that does not parse', 'x,,,,10.0.0.1,,soon,,,', 'hosts/x', /column since: "soon"/],
  ['labels without a value', 'x,,,,10.0.0.1,,,,env,', 'hosts/x', /column labels: "env" is not key=value/],
  ['a label that is given twice', 'x,,,,10.0.0.1,,,a,app=b,', 'hosts/x', /column labels: app is given twice/],
  ['too few cells', 'x,vm-1,,', 'hosts/vm-1', /^line 2 \(vm-1\): has 4 cells, the header has 10$/],
  ['a stray quote', 'x,vm-1,,a"b,10.0.0.1,,,,,', 'hosts/vm-1', /^line 2 \(vm-1\): a quote stands inside/],
  ['no name', ',,,,10.0.0.1,,,,,', null, /^line 2: .*name/],
];
for (const [what, line, ref, message] of bad) {
  test(`a bad line is named by line and column and does not stop the others: ${what}`, () => {
    const { entities, malformed } = readCsvHosts(`${head}${line}\ngood,,,,10.0.0.2,,,,,\n`);
    assert.deepEqual([...entities.keys()], ['hosts/good']);
    assert.equal(malformed.length, 1);
    assert.equal(malformed[0]?.ref, ref);
    assert.match(malformed[0]?.message ?? '', message);
  });
}

test('a quote that never closes loses nothing before it, and makes nothing end', () => {
  const { entities, malformed } = readCsvHosts(
    `${head}a,,,,10.0.0.1,,,,,\n"b,,,,10.0.0.2,,,,,\nc,,,,,,,,,\n`,
  );
  assert.deepEqual([...entities.keys()], ['hosts/a']);
  assert.deepEqual(
    malformed.map(({ ref }) => ref),
    [null],
  );
});

test('a file that is only half written makes nothing end', () => {
  const whole = `${head}a,,,,10.0.0.1,,,,,\nb,,,,10.0.0.2,,,,,\nc,,,,10.0.0.3,,,,,\n`;
  const { entities, malformed } = readCsvHosts(whole.slice(0, -25));
  assert.deepEqual([...entities.keys()], ['hosts/a']);
  assert.deepEqual(
    malformed.map(({ ref }) => ref),
    [null],
  );
});

const headers: readonly [string, RegExp][] = [
  ['name,adress', /line 1: column adress is not known; did you mean address\?/],
  ['name,address,lable.app', /column lable\.app is not known; did you mean label/],
  ['name,address,name', /column name stands there twice/],
  ['name,addresses,address', /column address stands there twice/],
  ['name,address,', /column 3 has no name/],
  ['id,address', /there is no column name/],
  ['name,group', /there is no column address/],
  ['', /there is no header/],
];
for (const [header, message] of headers) {
  test(`a header that is wrong reads nothing and makes nothing end: ${JSON.stringify(header)}`, () => {
    const { entities, malformed } = readCsvHosts(`${header}\nx,y,z\n`.replace(/^\nx.*/, ''));
    assert.equal(entities.size, 0);
    assert.ok(malformed.length > 0 && malformed.every(({ ref }) => ref === null));
    assert.ok(
      malformed.some((problem) => message.test(problem.message)),
      malformed[0]?.message,
    );
  });
}

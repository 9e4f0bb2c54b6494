import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readPut } from './put.ts';

test('the hosts of a hosts file are put, each with an id and its network', () => {
  assert.deepEqual(
    readPut(
      'network: dc\nhosts: [{ name: a, addresses: [10.0.0.1] }, { name: b, id: x, network: y }]',
      'h.yaml',
    ),
    {
      workloads: [
        { network: 'dc', id: 'a', name: 'a', addresses: ['10.0.0.1'] },
        { network: 'y', id: 'x', name: 'b' },
      ],
    },
  );
});

test('the lines of a CSV file are put', () => {
  assert.deepEqual(readPut('name,address,label.app\na,10.0.0.1,ledger\n', 'H.CSV'), {
    workloads: [{ id: 'a', name: 'a', addresses: ['10.0.0.1'], labels: { app: 'ledger' }, annotations: {} }],
  });
});

test('a request in a file is put as it stands', () => {
  const request = { source: 'cmdb', ttl: '24h', workloads: [{ id: 'a', remove: true }] };
  assert.deepEqual(readPut(JSON.stringify(request), 'request.json'), request);
});

for (const [text, path, message] of [
  ['hosts: [', 'h.yaml', /^h\.yaml: document 1 \(line 1\): not valid YAML/],
  ['a: 1', 'h.yaml', /expected a list of workloads or hosts/],
  ['- a', 'h.yaml', /expected one document/],
  ['hosts: []\nranges: []', 'h.yaml', /ranges cannot be put over HTTP/],
  [
    'name,adress\n',
    'h.csv',
    /^h\.csv: line 1: column adress is not known; did you mean address\?.* \(and 1 more\)$/,
  ],
] as const) {
  test(`a file that cannot be put says why: ${JSON.stringify(text)}`, () => {
    assert.throws(() => readPut(text, path), { message });
  });
}

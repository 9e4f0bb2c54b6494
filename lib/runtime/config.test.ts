import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import Type from 'typebox';
import { ConfigError, type ConfigFlag, type ConfigInputs, loadConfig, RuntimeConfig } from './config.ts';
import { environmentName, parseSetFlag } from './config-sources.ts';

const sections = {
  runtime: RuntimeConfig,
  door: Type.Object({
    port: Type.Integer({ default: 8089, minimum: 0, maximum: 65_535, description: 'TCP port.' }),
    open: Type.Boolean({ default: true }),
    ratio: Type.Number({ default: 0.5 }),
    hosts: Type.Array(Type.String(), { default: ['a'] }),
    ports: Type.Array(Type.Integer(), { default: [] }),
    password: Type.String({ default: '', secret: true }),
    tokens: Type.Record(
      Type.String({ minLength: 8 }),
      Type.Object({ agents: Type.String({ default: '*' }) }, { default: {}, additionalProperties: false }),
      {
        default: {},
        secret: true,
      },
    ),
    labels: Type.Record(Type.String(), Type.String(), { default: {} }),
    name: Type.Optional(Type.String()),
    limits: Type.Object(
      { bodyBytes: Type.Integer({ default: 10, minimum: 1 }) },
      { default: {}, additionalProperties: false },
    ),
    sources: Type.Array(
      Type.Union([
        Type.Object(
          { kind: Type.Literal('file'), path: Type.String(), everyMs: Type.Integer({ default: 5 }) },
          { additionalProperties: false },
        ),
        Type.Object({ kind: Type.Literal('web'), url: Type.String() }, { additionalProperties: false }),
      ]),
      { default: [] },
    ),
  }),
  must: Type.Object({ have: Type.String({ default: 'it', minLength: 1 }) }),
};

describe('configuration', () => {
  let cwd = '';
  before(() => {
    cwd = mkdtempSync(join(tmpdir(), 'eastwest-config-'));
  });
  after(() => rmSync(cwd, { recursive: true }));

  function inputs(
    given: { file?: string; environment?: Record<string, string>; flags?: string[] } = {},
  ): ConfigInputs {
    rmSync(join(cwd, 'eastwest.yaml'), { force: true });
    if (given.file !== undefined) {
      writeFileSync(join(cwd, 'eastwest.yaml'), given.file);
    }
    const flags = (given.flags ?? []).map((text): ConfigFlag => parseSetFlag(text)!);
    return { cwd, environment: given.environment ?? {}, flags };
  }
  const door = (given: Parameters<typeof inputs>[0] = {}) => loadConfig(sections, inputs(given)).values.door;
  function problems(given: Parameters<typeof inputs>[0]): string[] {
    try {
      loadConfig(sections, inputs(given));
    } catch (error) {
      assert.ok(error instanceof ConfigError);
      return error.message.split('\n');
    }
    return [];
  }

  test('a default holds where nothing else was said, nested ones too', () => {
    assert.equal(door().port, 8089);
    assert.equal(door().limits.bodyBytes, 10);
    assert.equal(door().name, undefined);
  });

  test('a flag beats the environment, which beats the file, which beats the default', () => {
    const file = 'door:\n  port: 1\n  ratio: 0.1\n  limits:\n    bodyBytes: 7\n';
    const environment = { EASTWEST_DOOR_PORT: '2', EASTWEST_DOOR_RATIO: '0.2' };
    const config = loadConfig(sections, inputs({ file, environment, flags: ['door.port=3'] }));
    assert.deepEqual(
      [config.values.door.port, config.values.door.ratio, config.values.door.limits.bodyBytes],
      [3, 0.2, 7],
    );
    const sources = Object.fromEntries(
      config.entries.map((entry) => [entry.key, [entry.source, entry.place]]),
    );
    assert.deepEqual(sources['door.port'], ['flag', '--set door.port']);
    assert.deepEqual(sources['door.ratio'], ['environment', 'environment variable EASTWEST_DOOR_RATIO']);
    assert.deepEqual(sources['door.limits.bodyBytes'], ['file', 'eastwest.yaml:5:16']);
    assert.deepEqual(sources['door.open'], ['default', '']);
  });

  test('text from the environment becomes what the schema wants', () => {
    const environment = {
      EASTWEST_DOOR_OPEN: 'false',
      EASTWEST_DOOR_HOSTS: 'x, y',
      EASTWEST_DOOR_PORTS: '1,2',
      EASTWEST_DOOR_LABELS: '{"a": "b"}',
      EASTWEST_DOOR_LIMITS_BODY_BYTES: '77',
      EASTWEST_DOOR_SOURCES: '[{kind: file, path: p}]',
    };
    const config = door({ environment });
    assert.deepEqual(
      [config.open, config.hosts, config.ports, config.labels, config.limits.bodyBytes, config.sources],
      [false, ['x', 'y'], [1, 2], { a: 'b' }, 77, [{ kind: 'file', path: 'p', everyMs: 5 }]],
    );
    assert.equal(door({ environment: { EASTWEST_DOOR_LIMITS_BODYBYTES: '78' } }).limits.bodyBytes, 78);
    assert.deepEqual(door({ environment: { EASTWEST_DOOR_HOSTS: '' } }).hosts, []);
  });

  test('a flag reaches a key of a mapping whose names are free', () => {
    assert.deepEqual(door({ flags: ['door.labels.team=red=1'] }).labels, { team: 'red=1' });
  });

  test('an unknown key of the file is named with its line and the nearest right one', () => {
    assert.deepEqual(problems({ file: 'door:\n  open: true\n  prot: 3\n' }), [
      'eastwest.yaml:3:3: unknown key `door.prot`; the nearest key is `door.port`',
    ]);
  });

  test('an unknown section is named with the nearest right one', () => {
    assert.deepEqual(problems({ file: 'dor:\n  port: 3\n' }), [
      'eastwest.yaml:1:1: unknown section `dor`; the nearest section is `door`',
    ]);
  });

  test('an unknown key in an item of a list is named with its line, by the variant that was meant', () => {
    const file = 'door:\n  sources:\n    - kind: file\n      path: p\n      evryMs: 3\n';
    assert.deepEqual(problems({ file }), [
      'eastwest.yaml:5:7: unknown key `door.sources.0.evryMs`; the nearest key is `door.sources.0.everyMs`',
    ]);
  });

  test('a wrong kind of item says which kinds there are', () => {
    const [first] = problems({ file: 'door:\n  sources:\n    - kind: fiel\n      path: p\n' });
    assert.equal(first, 'eastwest.yaml:3:13: `door.sources.0.kind` is \'fiel\'; expected "file" or "web"');
  });

  test('an item that lacks a key says which', () => {
    assert.deepEqual(problems({ file: 'door:\n  sources:\n    - kind: web\n' }), [
      'eastwest.yaml:3:7: `door.sources.0.url` is not set; expected text',
    ]);
  });

  test('a wrong value says where it stands, what it is and what is expected', () => {
    assert.deepEqual(problems({ file: 'door:\n  port: 70000\n' }), [
      'eastwest.yaml:2:9: `door.port` is 70000; expected a whole number from 0 to 65535 (TCP port)',
    ]);
    assert.deepEqual(problems({ environment: { EASTWEST_DOOR_PORT: 'many' } }), [
      "environment variable EASTWEST_DOOR_PORT: `door.port` is 'many'; expected a whole number from 0 to 65535 (TCP port)",
    ]);
    assert.deepEqual(problems({ flags: ['door.open=perhaps'] }), [
      "--set door.open: `door.open` is 'perhaps'; expected true or false",
    ]);
    assert.match(
      problems({ flags: ['runtime.logLevel=loud'] })[0] ?? '',
      /expected one of "trace", "debug", /,
    );
    assert.deepEqual(problems({ flags: ['must.have='] }), [
      "--set must.have: `must.have` is ''; expected text of at least 1 characters",
    ]);
  });

  test('a wrong environment variable is named with the nearest right one', () => {
    assert.deepEqual(problems({ environment: { EASTWEST_DOOR_PROT: '1' } }), [
      'environment variable EASTWEST_DOOR_PROT: no such setting; the nearest is EASTWEST_DOOR_PORT',
    ]);
  });

  test('what Kubernetes says about Services of our name is not taken for settings', () => {
    const environment = {
      KUBERNETES_SERVICE_HOST: '10.0.0.1',
      EASTWEST_DOOR_PORT: 'tcp://10.0.0.7:80',
      EASTWEST_DOOR_SERVICE_HOST: '10.0.0.7',
      EASTWEST_DOOR_PORT_80_TCP_ADDR: '10.0.0.7',
    };
    assert.equal(door({ environment }).port, 8089);
  });

  test('a wrong flag is named with the nearest right one, a whole section is refused', () => {
    assert.deepEqual(problems({ flags: ['door.limits.bodyByte=1'] }), [
      '--set door.limits.bodyByte: unknown key `door.limits.bodyByte`; the nearest key is `door.limits.bodyBytes`',
    ]);
    assert.match(problems({ flags: ['door=1'] })[0] ?? '', /^--set door: expected section\.key=value/);
  });

  test('broken YAML is named with its line', () => {
    assert.match(
      problems({ file: 'door:\n  port: [1\n' })[0] ?? '',
      /^eastwest\.yaml:\d+:\d+: not valid YAML/,
    );
    assert.match(problems({ file: 'door:\n  port: 1\n  port: 2\n' })[0] ?? '', /^eastwest\.yaml:3:3: /);
    assert.match(problems({ file: '- a\n' })[0] ?? '', /expected a mapping of sections/);
  });

  test('every problem is told at once', () => {
    assert.equal(problems({ file: 'dor: {}\ndoor:\n  port: x\n', flags: ['door.open=2'] }).length, 3);
  });

  test('an empty file and a section with nothing in it set nothing', () => {
    assert.equal(door({ file: '' }).port, 8089);
    assert.equal(door({ file: 'door:\n' }).port, 8089);
  });

  test('a file that was named and is not there is an error', () => {
    assert.throws(
      () => loadConfig(sections, { ...inputs(), file: 'missing.yaml' }),
      /missing\.yaml: the configuration file cannot be read/,
    );
  });

  test('a key that is a secret is never shown in an error', () => {
    for (const text of [
      'door: { tokens: { s3cret-short: 7 } }',
      'door: { tokens: { s3cret-and-long: { agent: x } } }',
    ]) {
      writeFileSync(join(cwd, 'eastwest.yaml'), text);
      assert.throws(
        () => loadConfig(sections, { cwd, file: undefined, environment: {}, flags: [] }),
        (error: unknown) =>
          error instanceof ConfigError &&
          !error.message.includes('s3cret') &&
          /door\.tokens\.\*\*\*/.test(error.message),
      );
    }
    rmSync(join(cwd, 'eastwest.yaml'));
  });

  test('a secret is never shown, neither in the listing nor in an error', () => {
    const config = loadConfig(sections, inputs({ flags: ['door.password=hunter2'] }));
    assert.equal(config.values.door.password, 'hunter2');
    assert.doesNotMatch(JSON.stringify(config.entries), /hunter2/);
    assert.doesNotMatch(problems({ file: 'door:\n  password: [hunter2]\n' }).join(), /hunter2/);
  });

  test('a process that knows all sections takes a file that speaks of others', () => {
    const own = loadConfig({ must: sections.must }, inputs({ file: 'door:\n  port: 4\n' }), sections);
    assert.deepEqual(own.values, { must: { have: 'it' } });
    assert.throws(() => loadConfig({ must: sections.must }, inputs({ file: 'door: {}\n' })), ConfigError);
  });

  test('the variable of a key is its path in capitals, words apart', () => {
    assert.equal(environmentName(['store', 'embedded', 'httpPort']), 'EASTWEST_STORE_EMBEDDED_HTTP_PORT');
  });
});

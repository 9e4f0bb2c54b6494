/** What deploy/ and docker-compose.yml name exists: files, commands, configuration keys, ports, users. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { parse } from 'yaml';
import { sections } from '../cli/sections.ts';
import { loadConfig } from '../lib/runtime/config.ts';
import type { Sections } from '../lib/runtime/service.ts';
import { usersConfig } from '../lib/store/embedded/configuration.ts';
import { maxMessageBytes } from '../schemas/topics.ts';
import { readHosts } from '../services/kubelink/sources/hosts.ts';
import { startWithUsers } from './support/clickhouse-users.ts';

const run = promisify(execFile);
const root = fileURLToPath(new URL('..', import.meta.url));
const at = (...path: string[]): string => join(root, ...path);
const text = (...path: string[]): string => readFileSync(at(...path), 'utf8');

interface ComposeService {
  image: string;
  build?: { context: string; dockerfile: string };
  command?: string[];
  environment?: Record<string, string | number>;
  volumes?: string[];
  ports?: string[];
  healthcheck?: { test?: string[]; disable?: boolean };
  depends_on?: Record<string, { condition: string }>;
  network_mode?: string;
}

interface Compose {
  services: Record<string, ComposeService>;
  volumes: Record<string, unknown>;
}

/** `${NAME:-default}` as compose replaces it when nothing is set. */
function interpolated(source: string): string {
  return source.replace(/\$\{(\w+):-([^}]*)\}/g, (_, __, fallback: string) => fallback);
}

const source = text('docker-compose.yml');
const compose: Compose = parse(interpolated(source), { merge: true });
const services = Object.entries(compose.services);
const own = services.filter(([, { build }]) => build !== undefined);
const dockerfile = text('deploy', 'Dockerfile');

function environmentOf(service: ComposeService): Record<string, string> {
  return Object.fromEntries(
    Object.entries(service.environment ?? {}).map(([name, value]) => [name, String(value)]),
  );
}

/** What the Dockerfile sets for every process. */
function imageEnvironment(): Record<string, string> {
  return Object.fromEntries(
    [...dockerfile.matchAll(/(EASTWEST_\w+)=(\S+)/g)].map(([, name, value]) => [name, value]),
  );
}

function configOf(environment: Readonly<Record<string, string>>) {
  return loadConfig(sections, { cwd: tmpdir(), file: undefined, environment, flags: [] });
}

const mains: Readonly<Record<string, string>> = {
  demo: '../estate/main.ts',
  migrate: '../cli/processes/migrate.ts',
};

async function sectionsOf(command: string): Promise<Sections> {
  const module: { service: { sections: Sections } } = await import(
    mains[command] ?? `../services/${command}/main.ts`
  );
  return { ...module.service.sections, runtime: sections.runtime };
}

describe('docker-compose.yml', () => {
  test('leaves nothing to be set: every variable has a default', () => {
    assert.deepEqual(interpolated(source).match(/\$\{[^}]*\}/g), null);
  });

  test('has every service of the design, run by commands that exist', async () => {
    const { stdout } = await run(process.execPath, [at('cli', 'eastwest.mjs'), '--help']);
    const commands = [...stdout.matchAll(/^ {2}(\w+)/gm)].map(([, command]) => command);
    for (const [name, { command }] of own)
      assert.ok(commands.includes(command?.[0] ?? ''), `${name}: ${command}`);
    assert.deepEqual(own.map(([name]) => name).sort(), [
      'agent',
      'alert',
      'demo',
      'enrich',
      'ingest',
      'kubelink',
      'migrate',
      'query',
    ]);
  });

  for (const [name, service] of own) {
    test(`sets only keys that ${name} reads, to values it takes`, async () => {
      const environment = environmentOf(service);
      const { entries, values } = configOf({ ...imageEnvironment(), ...environment });
      const read = await sectionsOf(service.command?.[0] ?? '');
      const set = entries
        .filter(({ source: from }) => from === 'environment')
        .map(({ key }) => key.split('.')[0] ?? '');
      for (const section of new Set(set))
        assert.ok(section in read, `${name} does not read section ${section}`);
      assert.ok(!('bus' in read) || name === 'agent' || values.bus.kind === 'kafka');
      assert.ok(!('store' in read) || values.store.url === 'http://clickhouse:8123');
    });
  }

  test('mounts files and folders that exist, and volumes that are declared', () => {
    for (const [name, { volumes = [] }] of services) {
      for (const volume of volumes) {
        const [from = ''] = volume.split(':');
        if (from.startsWith('.')) assert.ok(existsSync(at(from)), `${name}: ${from}`);
        else assert.ok(from in compose.volumes, `${name}: ${from}`);
      }
    }
  });

  test('waits only for services that can tell when they are ready', () => {
    for (const [name, { depends_on = {} }] of services) {
      for (const [other, { condition }] of Object.entries(depends_on)) {
        const awaited = compose.services[other];
        assert.ok(awaited !== undefined, `${name} waits for ${other}`);
        const tells = awaited.build !== undefined || awaited.healthcheck?.test !== undefined;
        if (condition === 'service_healthy')
          assert.ok(tells && !awaited.healthcheck?.disable, `${name}: ${other}`);
        else assert.deepEqual([other, condition], ['migrate', 'service_completed_successfully']);
      }
    }
  });

  test('publishes the ports on which the services listen, on this machine only', () => {
    const { ingest, query } = configOf({}).values;
    const published = services.flatMap(([name, { ports = [] }]) => ports.map((port) => `${name} ${port}`));
    assert.deepEqual(published, [
      `ingest 127.0.0.1:${ingest.port}:${ingest.port}`,
      `query 127.0.0.1:${query.port}:${query.port}`,
      'prometheus 127.0.0.1:9090:9090',
      'grafana 127.0.0.1:3000:3000',
    ]);
    for (const name of ['ingest', 'query'] as const) {
      assert.equal(configOf(environmentOf(compose.services[name]!)).values[name].host, '0.0.0.0');
    }
  });

  test('gives the agent and the demo the token and the address of ingest', () => {
    const { tokens } = configOf(environmentOf(compose.services.ingest!)).values.ingest;
    const { demo } = configOf(environmentOf(compose.services.demo!)).values;
    const { agent } = configOf(environmentOf(compose.services.agent!)).values;
    assert.ok(demo.ingestToken in tokens);
    assert.ok(agent.token in tokens);
    const port = configOf({}).values.ingest.port;
    assert.equal(demo.ingestUrl, `http://ingest:${port}`);
    assert.equal(agent.ingestUrl, `http://127.0.0.1:${port}`);
  });

  test('lets the broker take the largest message', () => {
    const { KAFKA_MESSAGE_MAX_BYTES: limit } = environmentOf(compose.services.kafka!);
    assert.ok(Number(limit) > maxMessageBytes);
  });

  test('has an inventory that kubelink reads without a complaint', () => {
    const { sources } = configOf(environmentOf(compose.services.kubelink!)).values.kubelink;
    const mount = compose.services.kubelink?.volumes?.[0]?.split(':') ?? [];
    assert.deepEqual(
      sources.map((one) => [one.kind, 'path' in one && one.path]),
      [
        ['hosts', mount[1]],
        ['api', false],
      ],
    );
    const folder = at(mount[0] ?? '');
    for (const file of readdirSync(folder)) {
      assert.deepEqual(readHosts(readFileSync(join(folder, file), 'utf8')).malformed, []);
    }
  });

  test('is taken by docker compose itself, where it is installed', async (context) => {
    const isThere = await run('docker', ['compose', 'version']).then(
      () => true,
      () => false,
    );
    if (!isThere) {
      context.skip('optional: docker compose is not installed; the checks above stand in for it');
      return;
    }
    await run('docker', [
      'compose',
      '--file',
      at('docker-compose.yml'),
      '--profile',
      '*',
      'config',
      '--quiet',
    ]);
  });
});

describe('the image', () => {
  test('copies what exists, and all that the command imports', () => {
    const copied = [...dockerfile.matchAll(/^COPY (?!--from)(.+) \S+$/gm)].flatMap(([, list = '']) =>
      list.split(' '),
    );
    for (const path of copied) assert.ok(existsSync(at(path)), path);
    const folders = copied.filter((path) => statSync(at(path)).isDirectory());
    const ignored = text('deploy', 'Dockerfile.dockerignore').split('\n');
    for (const path of copied) assert.ok(ignored.includes(`!${path}`), `${path} is not in the build context`);
    for (const folder of folders) {
      for (const file of readdirSync(at(folder), { recursive: true, encoding: 'utf8' })) {
        if (!file.endsWith('.ts') || file.endsWith('.test.ts')) continue;
        for (const [, target = ''] of text(folder, file).matchAll(/from '(\.[^']+)'/g)) {
          const [top = ''] = join(folder, file, '..', target).split('/');
          assert.ok(copied.includes(top), `${folder}/${file} imports from ${top}, which is not in the image`);
        }
      }
    }
  });

  test('serves its probes where its health check and Prometheus look', () => {
    const { runtime } = configOf(imageEnvironment()).values;
    assert.equal(runtime.http.host, '0.0.0.0');
    assert.match(dockerfile, new RegExp(`http://127\\.0\\.0\\.1:${runtime.http.port}/readyz`));
    assert.match(dockerfile, new RegExp(`^EXPOSE ${runtime.http.port}$`, 'm'));
    for (const [name, service] of own) {
      assert.equal(configOf(environmentOf(service)).values.runtime.http.port, runtime.http.port, name);
    }
  });
});

describe('Prometheus', () => {
  interface ScrapeConfig {
    job_name: string;
    dns_sd_configs?: { names: string[]; port: number }[];
    static_configs?: { targets: string[] }[];
  }
  const { scrape_configs: jobs }: { scrape_configs: ScrapeConfig[] } = parse(
    text('deploy', 'prometheus', 'prometheus.yml'),
  );

  test('scrapes every long-lived service of ours on the port of its metrics', () => {
    const names = own.filter(([, { network_mode }]) => network_mode === undefined).map(([name]) => name);
    const [config] = jobs.find(({ job_name }) => job_name === 'eastwest')?.dns_sd_configs ?? [];
    assert.deepEqual([...(config?.names ?? [])].sort(), names.filter((name) => name !== 'migrate').sort());
    assert.equal(config?.port, configOf({}).values.runtime.http.port);
  });

  test('names only hosts that exist, and the port that ClickHouse opens', () => {
    const targets = jobs.flatMap(({ static_configs = [] }) => static_configs.flatMap((one) => one.targets));
    for (const target of targets) {
      const [host = ''] = target.split(':');
      assert.ok(host === 'localhost' || host in compose.services, target);
    }
    const port = /<prometheus>[\s\S]*<port>(\d+)<\/port>/.exec(
      text('deploy', 'clickhouse', 'config.d', 'eastwest.xml'),
    );
    assert.ok(targets.includes(`clickhouse:${port?.[1]}`));
  });
});

const users = text('deploy', 'clickhouse', 'users.d', 'eastwest.xml');

/** The text of the element `name` within the element `parent`. */
function element(xml: string, parent: string, name: string): string {
  const outer = new RegExp(`<${parent}>([\\s\\S]*?)\\n {2}</${parent}>`).exec(xml)?.[1] ?? '';
  return new RegExp(`<${name}(?: replace="replace")?>([\\s\\S]*?)\\n {4}</${name}>`).exec(outer)?.[1] ?? '';
}

function leaves(xml: string): string[] {
  return [...xml.matchAll(/<(\w+)>([^<]*)<\/\1>/g)].map(([, name, value]) => `${name}=${value}`).sort();
}

describe('Grafana', () => {
  interface Datasource {
    uid: string;
    type: string;
    url?: string;
    jsonData: { host?: string; port?: number; username?: string; defaultDatabase?: string };
    secureJsonData?: { password: string };
  }
  const { datasources }: { datasources: Datasource[] } = parse(
    text('deploy', 'grafana', 'provisioning', 'datasources', 'eastwest.yaml'),
  );
  const grafana = compose.services.grafana!;

  test('reaches ClickHouse as a user that exists, with the plugin that is installed', () => {
    const [store] = datasources;
    assert.equal(store?.type, environmentOf(grafana).GF_PLUGINS_PREINSTALL_SYNC);
    assert.ok((store?.jsonData.host ?? '') in compose.services);
    assert.equal(store?.jsonData.defaultDatabase, configOf({}).values.store.database);
    const user = element(users, 'users', store?.jsonData.username ?? '');
    const passwordFrom = /from_env="(\w+)"/.exec(user)?.[1] ?? '';
    assert.equal(store?.secureJsonData?.password, `$${passwordFrom}`);
    assert.equal(
      environmentOf(grafana)[passwordFrom],
      environmentOf(compose.services.clickhouse!)[passwordFrom],
      'both sides have the same password',
    );
  });

  test('finds its dashboards, and they use datasources that are there', () => {
    const { providers }: { providers: { options: { path: string } }[] } = parse(
      text('deploy', 'grafana', 'provisioning', 'dashboards', 'eastwest.yaml'),
    );
    const mount = grafana.volumes?.find((volume) => volume.split(':')[1] === providers[0]?.options.path);
    const folder = at(mount?.split(':')[0] ?? '');
    const known = new Set(datasources.map(({ uid }) => uid));
    const types = new Set(datasources.map(({ type }) => type));
    const files = readdirSync(folder).filter((file) => file.endsWith('.json'));
    assert.notEqual(files.length, 0);
    for (const file of files) {
      const json = readFileSync(join(folder, file), 'utf8');
      const { templating }: { templating?: { list: { name: string; type: string; query: string }[] } } =
        JSON.parse(json);
      // A dashboard may let its reader choose among the datasources of one type.
      const chosen = (templating?.list ?? []).filter(
        ({ type, query }) => type === 'datasource' && types.has(query),
      );
      const variables = new Set(chosen.map(({ name }) => `\${${name}}`));
      const uses = [...json.matchAll(/"datasource":\s*\{[^}]*?"uid":\s*"([^"]+)"/g)];
      assert.notEqual(uses.length, 0, file);
      for (const [, uid = ''] of uses) {
        assert.ok(known.has(uid) || variables.has(uid) || uid.startsWith('-- '), `${file}: ${uid}`);
      }
    }
  });
});

describe('the users of ClickHouse', () => {
  const embedded = usersConfig({
    folder: '',
    httpPort: 0,
    tcpPort: 0,
    memoryBytes: 4 * 1024 ** 3,
    database: 'eastwest',
    mergeThreads: 1,
  });

  test('have passwords that compose hands over, and the services know', () => {
    const given = environmentOf(compose.services.clickhouse!);
    const needed = [...users.matchAll(/from_env="(\w+)"/g)].map(([, name = '']) => name);
    assert.deepEqual(needed.sort(), Object.keys(given).sort());
    const { store } = configOf(environmentOf(compose.services.query!)).values;
    assert.notEqual(element(users, 'users', store.username), '');
    assert.notEqual(element(users, 'users', store.reader.username), '');
    assert.equal(store.password, given.EASTWEST_STORE_PASSWORD);
    assert.equal(store.reader.password, given.EASTWEST_STORE_READER_PASSWORD);
  });

  test('give the reader the rights and limits that it has in the embedded server', () => {
    assert.deepEqual(
      leaves(element(users, 'profiles', 'reader')),
      leaves(element(embedded, 'profiles', 'reader')),
    );
    const granted = (xml: string, user: string) =>
      leaves(element(xml, 'users', user)).filter((leaf) => leaf.startsWith('query='));
    assert.notEqual(granted(embedded, 'reader').length, 0);
    assert.deepEqual(granted(users, 'reader'), granted(embedded, 'reader'));
    assert.deepEqual(granted(users, 'grafana'), granted(embedded, 'reader'));
  });

  test('are taken by a real server: readers read, change nothing, and only Grafana lowers its time limit', async () => {
    const passwords = environmentOf(compose.services.clickhouse!);
    const { url, stop } = await startWithUsers(users, passwords);
    try {
      const ask = async (user: string, password: string, sql: string, settings = ''): Promise<string> => {
        const headers = { 'X-ClickHouse-User': user, 'X-ClickHouse-Key': password };
        const answer = await fetch(`${url}/?${settings}`, { method: 'POST', body: sql, headers });
        return (await answer.text()).trim();
      };
      const writer = passwords.EASTWEST_STORE_PASSWORD ?? '';
      assert.equal(await ask('eastwest', writer, 'CREATE DATABASE eastwest'), '');
      assert.equal(
        await ask('eastwest', writer, 'CREATE TABLE eastwest.t (n UInt8) ENGINE = MergeTree ORDER BY n'),
        '',
      );
      assert.equal(await ask('eastwest', writer, 'INSERT INTO eastwest.t VALUES (7)'), '');
      for (const [user, variable] of [
        ['reader', 'EASTWEST_STORE_READER_PASSWORD'],
        ['grafana', 'EASTWEST_GRAFANA_READER_PASSWORD'],
      ] as const) {
        const password = passwords[variable] ?? '';
        assert.equal(await ask(user, password, 'SELECT n FROM eastwest.t'), '7', user);
        assert.match(await ask(user, 'wrong', 'SELECT 1'), /AUTHENTICATION_FAILED/);
        assert.match(
          await ask(user, password, 'INSERT INTO eastwest.t VALUES (8)'),
          /READONLY|ACCESS_DENIED/,
        );
        assert.match(
          await ask(user, password, "SELECT * FROM url('http://127.0.0.1:1/')"),
          /ACCESS_DENIED|READONLY/,
        );
        assert.match(await ask(user, password, 'SELECT 1', 'max_result_rows=0'), /READONLY/);
        const lowered = await ask(user, password, 'SELECT 1', 'max_execution_time=5');
        if (user === 'grafana') assert.equal(lowered, '1');
        else assert.match(lowered, /READONLY/);
        assert.match(
          await ask(user, password, 'SELECT 1', 'max_execution_time=61'),
          /READONLY|SETTING_CONSTRAINT/,
        );
      }
    } finally {
      await stop();
    }
  });
});

test('the unit of systemd runs a command that exists with keys that exist', () => {
  const unit = text('deploy', 'systemd', 'eastwest-agent.service');
  const environment = Object.fromEntries(
    [...unit.matchAll(/(EASTWEST_\w+)=(\S+)/g)].map(([, name = '', value = '']) => [name, value]),
  );
  const { entries } = configOf(environment);
  const set = entries.filter(({ source: from }) => from === 'environment').map(({ key }) => key);
  assert.deepEqual(set.sort(), [
    'agent.ingestUrl',
    'agent.network',
    'agent.token',
    'runtime.dataDir',
    'runtime.logFormat',
  ]);
  const program = /^ExecStart=\S+ \/opt\/eastwest\/(\S+) (\w+)$/m.exec(unit);
  assert.ok(existsSync(at(program?.[1] ?? '')));
  assert.equal(program?.[2], 'agent');
});

test('the Deployment runs kubelink with keys that exist, and may use the lease that it asks for', () => {
  interface Manifest {
    kind: string;
    metadata: { name: string; namespace?: string };
    rules: { resources: string[]; resourceNames?: string[]; verbs: string[] }[];
    spec: {
      template: { spec: { containers: { args: string[]; env: { name: string; value: string }[] }[] } };
    };
  }
  const documents = text('deploy', 'kubernetes', 'kubelink.yaml')
    .split('\n---\n')
    .map((document): Manifest => parse(document));
  const deployment = documents.find(({ kind }) => kind === 'Deployment');
  const [container] = deployment?.spec.template.spec.containers ?? [];
  assert.deepEqual(container?.args, ['kubelink']);
  const environment = Object.fromEntries((container?.env ?? []).map(({ name, value }) => [name, value]));
  const [source] = configOf(environment).values.kubelink.sources;
  assert.ok(source?.kind === 'kubernetes');
  const role = documents.find(({ kind }) => kind === 'Role');
  // In a pod the lease is in the pod's own namespace.
  assert.equal(role?.metadata.namespace, deployment?.metadata.namespace);
  const named = role?.rules.find(({ resourceNames }) => resourceNames?.includes(source.leaseName));
  assert.deepEqual(named?.verbs, ['get', 'update']);
});

test('the DaemonSet runs the agent with keys that exist', () => {
  interface DaemonSet {
    kind: string;
    spec: {
      template: { spec: { containers: { args: string[]; env: { name: string; value?: string }[] }[] } };
    };
  }
  const documents = text('deploy', 'kubernetes', 'agent-daemonset.yaml')
    .split('\n---\n')
    .map((document): DaemonSet => parse(document));
  const [container] = documents.find(({ kind }) => kind === 'DaemonSet')?.spec.template.spec.containers ?? [];
  assert.deepEqual(container?.args, ['agent']);
  const environment = Object.fromEntries(
    (container?.env ?? []).map(({ name, value = 'x' }) => [name, value]),
  );
  const { values } = configOf(environment);
  assert.equal(values.agent.node, 'x');
  assert.equal(values.agent.network, values.agent.cluster);
});

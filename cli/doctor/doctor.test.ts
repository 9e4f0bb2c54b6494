import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { pino } from 'pino';
import { loadConfig } from '../../lib/runtime/config.ts';
import { parseSetFlag } from '../../lib/runtime/config-sources.ts';
import { formatFindings } from '../commands/doctor.ts';
import { sections } from '../sections.ts';
import { checkClock, checkFolder, checkMemory, checkNode, checkOpenFiles, openFileLimit } from './machine.ts';
import { checkApi, checkBus, checkIngest, checkPorts, checkProcesses, checkStore } from './services.ts';

const log = pino({ level: 'silent' });
const limits = (soft: string) =>
  `Limit   Soft Limit   Hard Limit   Units\nMax open files            ${soft}   524288   files\n`;

describe('the doctor', () => {
  let folder = '';
  let server: Server;
  let port = 0;
  let status = 415;
  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'eastwest-doctor-'));
    server = createServer((_request, response) => response.writeHead(status).end('{}'));
    await new Promise<void>((settle) => server.listen(0, '127.0.0.1', settle));
    const address = server.address();
    port = typeof address === 'object' && address !== null ? address.port : 0;
  });
  after(() => {
    server.closeAllConnections();
    server.close();
    rmSync(folder, { recursive: true });
  });
  const configOf = (...sets: string[]) => {
    const flags = [`runtime.dataDir=${folder}`, ...sets].map((text) => parseSetFlag(text)!);
    return loadConfig(sections, { cwd: folder, environment: {}, flags }).values;
  };
  const running = { pid: 1, startedAt: 'today', processes: [] };

  test('an old Node is a fault, and how to get a newer one is said', () => {
    assert.equal(checkNode('24.1.0').status, 'ok');
    assert.match(checkNode('20.20.2').mend, /install Node 24/);
  });

  test('few open files are worth a warning, very few are a fault', () => {
    const statuses = ['65536', '1024', '100', 'unlimited'].map(
      (soft) => checkOpenFiles(() => limits(soft)).status,
    );
    assert.deepEqual(statuses, ['ok', 'warn', 'fail', 'ok']);
    assert.equal(openFileLimit('nothing'), undefined);
  });

  test('little memory is worth a warning', () => {
    assert.deepEqual([checkMemory(1024 ** 3).status, checkMemory(8 * 1024 ** 3).status], ['warn', 'ok']);
  });

  test('a clock of long ago is a fault', () => {
    assert.equal(checkClock(0).status, 'fail');
    assert.equal(checkClock().status, 'ok');
  });

  test('a data folder that is not there yet is judged by the folder it will stand in', () => {
    assert.notEqual(checkFolder(join(folder, 'a', 'b')).status, 'fail');
    assert.ok(checkFolder(join(folder, 'a', 'b')).detail.startsWith(join(folder, 'a', 'b')));
  });

  test('a process that restarts is a fault that names its log, one that starts is not yet', () => {
    const status = (name: string, phase: 'ready' | 'starting' | 'restarting') => ({
      name,
      phase,
      reason: 'why',
      pid: 1,
      restartCount: 0,
      startedAtMs: 1,
      memoryBytes: 1,
      probesUrl: '',
    });
    const processes = [status('query', 'ready'), status('agent', 'starting'), status('enrich', 'restarting')];
    const findings = checkProcesses({ ...running, processes });
    assert.deepEqual(
      findings.map((finding) => finding.status),
      ['ok', 'warn', 'fail'],
    );
    assert.match(findings[2]?.mend ?? '', /logs\/enrich\.log/);
  });

  test('a port in use is worth a warning while nothing runs, and right while Eastwest runs', async () => {
    const config = configOf(`query.port=${port}`, 'ingest.port=0', 'store.url=http://db');
    const [finding] = await checkPorts(config, undefined);
    assert.equal(finding?.status, 'warn');
    assert.match(finding?.mend ?? '', /--set query\.port=PORT/);
    assert.equal((await checkPorts(config, running))[0]?.status, 'ok');
  });

  test('an ingest that accepts the token is well, one that does not is a fault', async () => {
    const config = configOf(`agent.ingestUrl=http://127.0.0.1:${port}`, 'agent.token=0123456789abcdef');
    const statuses: string[] = [];
    for (status of [415, 401, 503]) {
      statuses.push((await checkIngest(config, undefined)).status);
    }
    assert.deepEqual(statuses, ['ok', 'fail', 'warn']);
  });

  test('what is not started is no fault, what should run and does not is one', async () => {
    const config = configOf('query.port=1', 'agent.ingestUrl=http://127.0.0.1:1', 'ingest.port=1');
    assert.deepEqual(
      [await checkApi(config, undefined), await checkApi(config, running)].map((finding) => finding.status),
      ['ok', 'fail'],
    );
    assert.deepEqual(
      [await checkIngest(config, undefined), await checkIngest(config, running)].map(
        (finding) => finding.status,
      ),
      ['ok', 'fail'],
    );
    assert.equal((await checkStore(config, undefined, log))[0]?.status, 'ok');
    assert.equal((await checkStore(config, running, log))[0]?.status, 'fail');
  });

  test('a store of the operator that does not answer is a fault that names its address', async () => {
    const [finding] = await checkStore(configOf('store.url=http://127.0.0.1:1'), undefined, log);
    assert.equal(finding?.status, 'fail');
    assert.match(finding?.detail ?? '', /http:\/\/127\.0\.0\.1:1 does not answer/);
    assert.match(finding?.mend ?? '', /store\.url/);
  });

  test('looking leaves nothing behind', async () => {
    const before = readdirSync(folder);
    await checkBus(configOf(), log);
    assert.deepEqual(readdirSync(folder), before);
  });

  test('each line that is not well is followed by how to mend it', () => {
    const lines = formatFindings([
      { check: 'node', status: 'ok', detail: '24', mend: '' },
      { check: 'api', status: 'fail', detail: 'away', mend: 'start it' },
    ]);
    assert.deepEqual(lines.slice(1), [
      'ok    node   24',
      'fail  api    away',
      '      -> start it',
      '',
      '1 to mend, 0 to look at, the rest is well',
    ]);
  });
});

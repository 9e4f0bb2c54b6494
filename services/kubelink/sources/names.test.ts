import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import { Value } from 'typebox/value';
import type { InventoryEvent, NameEvent } from '../../../lib/inventory/events.ts';
import { NamesConfig } from '../config.ts';
import { NameResolver } from './names.ts';

type Answer = readonly string[] | string;

/** A DNS in a table: addresses, or the code of a failure. */
class Dns {
  readonly four = new Map<string, Answer>();
  readonly six = new Map<string, Answer>();
  asked: string[] = [];
  underWay = 0;
  mostAtOnce = 0;

  async #answer(table: ReadonlyMap<string, Answer>, name: string): Promise<string[]> {
    this.asked.push(name);
    this.mostAtOnce = Math.max(this.mostAtOnce, ++this.underWay);
    await new Promise((resolve) => setImmediate(resolve));
    this.underWay--;
    const answer = table.get(name) ?? 'ENODATA';
    if (typeof answer === 'string') throw Object.assign(new Error(answer), { code: answer });
    return [...answer];
  }

  resolve4 = (name: string): Promise<string[]> => this.#answer(this.four, name);
  resolve6 = (name: string): Promise<string[]> => this.#answer(this.six, name);
  cancel = (): void => {};
}

function nameOf(name: string, dns: string[]): NameEvent {
  return { v: 1, type: 'name', name, dns, zone: 'outside', labels: {}, addresses: [] };
}

const provider = nameOf('provider', ['pay.example.com', '*.example.com']);
const wanted = { event: provider, lookups: ['pay.example.com'] };

let dns: Dns;
let nowMs: number;
let told: string[];
let restored: InventoryEvent | null;
let running: NameResolver[];

function addressesOf(event: NameEvent): string {
  return event.addresses.map(({ ip, sinceMs }) => `${ip}@${sinceMs}`).join(' ');
}

/** A resolver that looks up only when it is told to. */
function resolver(settings: object = {}): NameResolver {
  const limits = Value.Parse(NamesConfig, Value.Default(NamesConfig, { intervalMs: 3_600_000, ...settings }));
  const names = new NameResolver({ lookup: dns, limits, now: () => nowMs });
  names.start({
    restored: { event: () => restored },
    changed: (event) => told.push(`${event.name}: ${addressesOf(event)}`),
    problemsChanged: () => {},
  });
  running.push(names);
  return names;
}

beforeEach(() => {
  dns = new Dns();
  nowMs = 1000;
  told = [];
  restored = null;
  running = [];
});

afterEach(async () => {
  await Promise.all(running.map((names) => names.stop()));
});

test('a name has the addresses of both families, each since it was found, and loses one that is no longer answered', async () => {
  dns.four.set('pay.example.com', ['203.0.113.7']);
  dns.six.set('pay.example.com', ['2001:DB8:0::7']);
  const names = resolver({ keepMs: 0 });
  names.want([wanted]);
  await names.lookUp();
  assert.equal(addressesOf(names.withAddresses(provider)), '203.0.113.7@1000 2001:db8::7@1000');
  nowMs = 2000;
  dns.four.set('pay.example.com', ['203.0.113.8']);
  await names.lookUp();
  assert.equal(addressesOf(names.withAddresses(provider)), '2001:db8::7@1000 203.0.113.8@2000');
  assert.deepEqual(told.at(-1), 'provider: 2001:db8::7@1000 203.0.113.8@2000');
  assert.deepEqual(names.problems(), []);
});

test('an address that is answered now and then stays for as long as it is kept', async () => {
  const names = resolver({ keepMs: 500 });
  dns.four.set('pay.example.com', ['203.0.113.7']);
  names.want([wanted]);
  await names.lookUp();
  dns.four.set('pay.example.com', ['203.0.113.8']);
  nowMs = 1400;
  await names.lookUp();
  assert.equal(addressesOf(names.withAddresses(provider)), '203.0.113.7@1000 203.0.113.8@1400');
  nowMs = 1500;
  await names.lookUp();
  assert.equal(addressesOf(names.withAddresses(provider)), '203.0.113.8@1400');
});

for (const failure of ['ETIMEOUT', 'ESERVFAIL', 'ENOTFOUND']) {
  test(`a look-up that fails keeps what is known, is a problem once, and heals: ${failure}`, async () => {
    const names = resolver({ keepMs: 0 });
    dns.four.set('pay.example.com', ['203.0.113.7']);
    names.want([wanted]);
    await names.lookUp();
    dns.four.set('pay.example.com', failure);
    for (nowMs of [2000, 3000]) await names.lookUp();
    assert.equal(addressesOf(names.withAddresses(provider)), '203.0.113.7@1000');
    assert.equal(names.problems().length, 1);
    assert.match(names.problems()[0] ?? '', new RegExp(`pay\\.example\\.com: .*${failure}`));
    dns.four.set('pay.example.com', ['203.0.113.9']);
    nowMs = 4000;
    await names.lookUp();
    assert.equal(addressesOf(names.withAddresses(provider)), '203.0.113.9@4000');
    assert.deepEqual(names.problems(), []);
  });
}

test('while one of several DNS names fails, no address is taken from the listed name', async () => {
  const both = { event: nameOf('both', ['a.example', 'b.example']), lookups: ['a.example', 'b.example'] };
  const names = resolver({ keepMs: 0 });
  dns.four.set('a.example', ['203.0.113.1']).set('b.example', 'ESERVFAIL');
  names.want([both]);
  await names.lookUp();
  dns.four.set('a.example', []);
  nowMs = 2000;
  await names.lookUp();
  assert.equal(addressesOf(names.withAddresses(both.event)), '203.0.113.1@1000');
  dns.four.set('b.example', ['203.0.113.2']);
  nowMs = 3000;
  await names.lookUp();
  assert.equal(addressesOf(names.withAddresses(both.event)), '203.0.113.2@3000');
});

test('addresses found before a restart count until they are known better', async () => {
  const address = { ip: '203.0.113.7', network: 'default', sinceMs: 5 };
  restored = { ...provider, addresses: [{ ...address, ip: '203.0.113.1', untilMs: 9 }, address] };
  dns.four.set('pay.example.com', 'ETIMEOUT');
  const names = resolver({ keepMs: 0 });
  names.want([wanted]);
  assert.equal(addressesOf(names.withAddresses(provider)), '203.0.113.7@5');
  await names.lookUp();
  assert.equal(addressesOf(names.withAddresses(provider)), '203.0.113.7@5');
  dns.four.set('pay.example.com', ['203.0.113.8']);
  nowMs = 2000;
  await names.lookUp();
  assert.equal(addressesOf(names.withAddresses(provider)), '203.0.113.8@2000');
});

test('names, addresses and questions at once are bounded, and what is over is said', async () => {
  const many = Array.from({ length: 20 }, (_, i) => `n${i}.example`);
  for (const name of many) dns.four.set(name, ['203.0.113.1', '203.0.113.2', '203.0.113.3']);
  const names = resolver({ maxLookups: 12, concurrency: 3, maxAddressesPerName: 2 });
  names.want([{ event: nameOf('many', many), lookups: many }]);
  await names.lookUp();
  assert.deepEqual([...new Set(dns.asked)].sort(), many.slice(0, 12).sort());
  // Each of three asks for both families; the first round of the loop may be under way as well.
  assert.ok(dns.mostAtOnce <= 12, String(dns.mostAtOnce));
  assert.equal(told.length, 1);
  assert.match(names.problems().join('\n'), /has 2 addresses; more are not taken/);
  assert.match(names.problems().join('\n'), /8 DNS names over the limit of 12/);
});

test('a name that is not looked up, and one that no longer is, is left as it stands', async () => {
  dns.four.set('pay.example.com', ['203.0.113.7']);
  const names = resolver();
  names.want([wanted]);
  await names.lookUp();
  names.want([]);
  assert.equal(names.withAddresses(provider), provider);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { watchMemory } from './memory-limit.ts';

test('near its limit a process says so and is not ready, and is again when it has room', (context) => {
  context.mock.timers.enable({ apis: ['setInterval'] });
  let bytes = 500;
  const parts: (true | string)[] = [];
  const memory = watchMemory({
    maxBytes: 1000,
    metrics: new Registry(),
    readiness: { set: (_, state) => parts.push(state) },
    log: pino({ level: 'silent' }),
    look: () => bytes,
  });
  context.mock.timers.tick(1000);
  assert.equal(memory.isTight(), false);
  bytes = 950;
  context.mock.timers.tick(1000);
  assert.equal(memory.isTight(), true);
  bytes = 800;
  context.mock.timers.tick(1000);
  assert.equal(memory.isTight(), false);
  assert.deepEqual(parts, ['950 of 1000 bytes (runtime.maxMemoryBytes)', true]);
  memory.close();
});

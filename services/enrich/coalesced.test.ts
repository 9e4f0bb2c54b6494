import assert from 'node:assert/strict';
import { test } from 'node:test';
import { coalesced } from './coalesced.ts';

test('whoever asks gets an answer that was begun after the question, and those who ask meanwhile share one', async () => {
  const begun: PromiseWithResolvers<number>[] = [];
  const ask = coalesced(() => {
    const answer = Promise.withResolvers<number>();
    begun.push(answer);
    return answer.promise;
  });
  const first = ask();
  const [second, third] = [ask(), ask()];
  assert.equal(begun.length, 1);
  begun[0]?.resolve(1);
  assert.equal(await first, 1);
  await new Promise(setImmediate);
  assert.equal(begun.length, 2);
  const fourth = ask();
  begun[1]?.resolve(2);
  assert.deepEqual(await Promise.all([second, third]), [2, 2]);
  await new Promise(setImmediate);
  assert.equal(begun.length, 3);
  begun[2]?.resolve(3);
  assert.equal(await fourth, 3);
});

test('a failure is told to those who asked, and the next question is asked anew', async () => {
  let count = 0;
  const ask = coalesced(async () => {
    count++;
    await null;
    if (count === 1) throw new Error('away');
    return count;
  });
  const [first, second] = [ask(), ask()];
  await assert.rejects(first, /away/);
  assert.equal(await second, 2);
  assert.equal(await ask(), 3);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import kafkajs from 'kafkajs';
import { murmur2, partitionOf } from './partitioner.ts';

test('murmur2 gives what the tests of Apache Kafka give', () => {
  const expected: [string, number][] = [
    ['21', -973932308],
    ['foobar', -790332482],
    ['a-little-bit-long-string', -985981536],
    ['a-little-bit-longer-string', -1486304829],
    ['lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8', -58897971],
    ['abc', 479470107],
  ];
  for (const [text, hash] of expected) assert.equal(murmur2(Buffer.from(text)), hash, text);
});

test('a key gets the partition that the default partitioner of kafkajs gives it', () => {
  const partitioner = kafkajs.Partitioners.DefaultPartitioner();
  for (const partitionCount of [1, 3, 4, 12]) {
    const partitionMetadata = Array.from({ length: partitionCount }, (_, partitionId) => ({
      partitionErrorCode: 0,
      partitionId,
      leader: 1,
      replicas: [1],
      isr: [1],
    }));
    for (let number = 0; number < 500; number++) {
      const key = `schlüssel-${'x'.repeat(number % 9)}-${number}`;
      const theirs = partitioner({ topic: 't', partitionMetadata, message: { key, value: null } });
      assert.equal(partitionOf(key, partitionCount), theirs, key);
    }
  }
});

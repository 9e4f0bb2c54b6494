import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { makeTokenBook, matcher, parseTokensFile } from './tokens.ts';

describe('tokens', () => {
  it('open the door to their own agents only', () => {
    const book = makeTokenBook({
      'token-of-the-east-1': { agents: 'east-*', networks: ['east'], clusters: [] },
    });
    const grant = book.find('token-of-the-east-1');
    assert.ok(grant);
    assert.ok(grant.allowsAgent('east-node-7'));
    assert.equal(grant.allowsAgent('west-node-7'), false);
    assert.equal(book.find('token-of-the-east-2'), null);
    assert.equal(book.find(''), null);
  });

  it('take a pattern literally but for its stars', () => {
    assert.ok(matcher('a.b*')('a.b-c'));
    assert.equal(matcher('a.b*')('axb'), false);
    assert.equal(matcher('node')('node-1'), false);
    assert.ok(matcher('*')(''));
    assert.ok(matcher('*(x)')('y(x)'));
  });

  it('come from a file too, with defaults filled in', () => {
    const tokens = parseTokensFile(
      'token-number-one-1: {}\ntoken-number-two-2: { agents: vm-*, clusters: [east] }\n',
    );
    assert.deepEqual(tokens['token-number-one-1'], { agents: '*', networks: [], clusters: [] });
    assert.equal(makeTokenBook(tokens).find('token-number-two-2')?.clusters[0], 'east');
    assert.equal(makeTokenBook(parseTokensFile('')).size, 0);
  });

  it('are never in a message about the file', () => {
    for (const text of ['token-number-one-1: { agents: 5 }', 'short: {}', '[a, b]']) {
      assert.throws(
        () => parseTokensFile(text),
        (error: Error) =>
          error.message.includes('expected tokens') && !error.message.includes('token-number-one-1'),
      );
    }
  });
});

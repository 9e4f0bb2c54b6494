/**
 * What a readonly user with few grants may still do on some servers: the scalar function `file` reads any file that an
 * embedded ClickHouse can open, and no grant or setting forbids it. So the parsed query is looked at before it runs.
 */

/** Functions that reach beyond tables, in lower case. */
const forbidden = new Set(['file', 'catboostevaluate']);

/** Nodes whose expressions `EXPLAIN AST` shows in full. Others may hide a call. */
const transparentRoots = /^(Select|Explain |DescribeQuery|Exists|ShowCreate)/;

/** What `EXPLAIN AST` is prefixed with, and so how far positions in messages about syntax are off. */
export const guardPrefix = 'EXPLAIN AST\n';

/**
 * Why a query may not run, or `null`. `lines` are those of its `EXPLAIN AST`, with parameters already put in. A name is
 * also looked for as a bare identifier, because functions are arguments too: `arrayMap(file, ['...'])`.
 */
export function forbiddenUse(query: string, lines: readonly string[]): string | null {
  for (const line of lines) {
    const name = /^\s*(?:Function|Identifier) (\S+)/.exec(line)?.[1];
    if (name !== undefined && forbidden.has(name.toLowerCase())) {
      return `the function ${name} is not allowed here, nor anything of that name; tables and other functions are`;
    }
    // The tree doesn't name the function that APPLY calls.
    if (line.includes('ColumnsApplyTransformer'))
      return 'APPLY is not allowed here; write the function around each column';
    if (line.includes('EXPLAIN TABLE OVERRIDE')) return 'EXPLAIN TABLE OVERRIDE is not allowed here';
    // SHOW ... WHERE keeps its condition out of the tree, at whatever depth it stands.
    if (/^\s*Show(?!Create)/.test(line) && query.includes('('))
      return 'SHOW with an expression is not allowed here; ask system tables';
  }
  const root = lines[0];
  if (root !== undefined && !transparentRoots.test(root) && query.includes('(')) {
    return 'only SELECT, WITH, EXPLAIN, DESCRIBE, EXISTS and SHOW are allowed here';
  }
  return null;
}

/** A message about the prefixed query in terms of the query itself. */
export function withoutPrefix(message: string): string {
  return message
    .replace(
      /failed at position (\d+)/,
      (_, position: string) => `failed at position ${Number(position) - guardPrefix.length}`,
    )
    .replace(/\(line (\d+), col/, (_, line: string) => `(line ${Number(line) - 1}, col`);
}

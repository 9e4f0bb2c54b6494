/** Splits a file of SQL into its statements. */

/** Where the part that begins at `start` ends (exclusive): quoted text with backslash or doubled quotes, or a comment. */
function skipPart(sql: string, start: number): number {
  const char = sql[start];
  if (char === "'" || char === '"' || char === '`') {
    let at = start + 1;
    while (at < sql.length && sql[at] !== char) at += sql[at] === '\\' ? 2 : 1;
    return at + 1;
  }
  if (sql.startsWith('--', start)) {
    const end = sql.indexOf('\n', start);
    return end < 0 ? sql.length : end;
  }
  if (sql.startsWith('/*', start)) {
    const end = sql.indexOf('*/', start + 2);
    return end < 0 ? sql.length : end + 2;
  }
  return start + 1;
}

function isComment(sql: string, at: number): boolean {
  return sql.startsWith('--', at) || sql.startsWith('/*', at);
}

/**
 * The statements between semicolons, trimmed, without comments; semicolons inside quotes and comments don't count.
 * Doubled quotes (`'it''s'`) read as two quoted texts side by side, which splits alike.
 */
export function splitStatements(sql: string): string[] {
  const statements: string[] = [];
  let current = '';
  let at = 0;
  const finish = (): void => {
    const statement = current.trim();
    if (statement !== '') statements.push(statement);
    current = '';
  };
  while (at < sql.length) {
    const end = skipPart(sql, at);
    if (isComment(sql, at)) current += ' ';
    else if (sql[at] === ';') finish();
    else current += sql.slice(at, end);
    at = end;
  }
  finish();
  return statements;
}

/** The command that asks what a link to `/api/v1/explain` does. */

/** A word as a shell takes it. */
function quoted(word: string): string {
  return /^[A-Za-z0-9_.,:=/@%+-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

export function explainCommand(path: string): string {
  const query = new URL(path, 'http://localhost').searchParams;
  const words = ['source', 'destination', 'port'].map((name) => query.get(name) ?? '');
  const options = ['process', 'at'].flatMap((name) => {
    const value = query.get(name);
    return value === null ? [] : [`--${name}`, value];
  });
  return ['npx', 'eastwest', 'explain', ...words, ...options].map(quoted).join(' ');
}

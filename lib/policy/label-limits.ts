/** What label keys and values may be. */

/** Labels that every workload is asked for. */
export const builtInLabels = ['role', 'app', 'env', 'loc'] as const;

/** Words that selectors know already: no label may be called so. */
export const selectorWords = ['cluster', 'namespace', 'kind', 'name'] as const;

/** Labels an identity may have at most. */
export const maxLabelCount = 20;
/** Characters of a label key at most: as many as the name of an annotation may have. */
export const maxLabelKeyLength = 63;
/** Characters of a label value at most. */
export const maxLabelValueLength = 253;

const keyForm = /^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$/;
// biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is looked for
const controlCharacter = /[\u0000-\u001f\u007f]/;

/** What is wrong with a label key, as the end of a sentence; null for nothing. */
export function labelKeyProblem(key: string): string | null {
  if (selectorWords.some((word) => word === key))
    return `"${key}" is built in, every workload has it: choose another key`;
  if (key.length > maxLabelKeyLength)
    return `"${key.slice(0, 30)}..." has ${key.length} characters: a label key has at most ${maxLabelKeyLength}`;
  if (!keyForm.test(key))
    return `"${key}" is no label key: write letters, digits, - _ and . , with a letter or digit at both ends`;
  return null;
}

/** What is wrong with a label value, as the end of a sentence; null for nothing. */
export function labelValueProblem(value: string): string | null {
  if (value.length > maxLabelValueLength)
    return `it has ${value.length} characters, a label value has at most ${maxLabelValueLength}`;
  if (controlCharacter.test(value)) return 'it has control characters, a label value has none';
  return null;
}

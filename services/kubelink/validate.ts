/** Checks unknown values against a schema and says in words what is wrong where. */
import type { Static, TSchema } from 'typebox';
import { Compile } from 'typebox/compile';

export type Checked<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly message: string };

/** `/status/podIPs/0/ip` becomes `status.podIPs[0].ip`. */
function fieldName(pointer: string): string {
  return pointer
    .split('/')
    .slice(1)
    .map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~'))
    .map((part, i) => (/^\d+$/.test(part) ? `[${part}]` : i === 0 ? part : `.${part}`))
    .join('');
}

/** Compiles the schema once; the returned function names the innermost wrong field. */
export function checker<S extends TSchema>(schema: S): (value: unknown) => Checked<Static<S>> {
  const validator = Compile(schema);
  return (value) => {
    if (validator.Check(value)) return { ok: true, value };
    // A union reports an error for each variant: the deepest one that is not about a missing null is the telling one.
    let telling: { path: string; message: string } | undefined;
    for (const error of validator.Errors(value)) {
      if (error.keyword === 'anyOf' || error.message === 'must be null') continue;
      const depth = error.instancePath.split('/').length;
      if (telling === undefined || depth > telling.path.split('/').length) {
        const isUnknownKey = error.message === 'schema is false';
        telling = { path: error.instancePath, message: isUnknownKey ? 'is not a known key' : error.message };
      }
    }
    const field = fieldName(telling?.path ?? '');
    return {
      ok: false,
      message: `${field === '' ? '' : `${field}: `}${telling?.message ?? 'does not match'}`,
    };
  };
}

/** An error of a value in a place of a document. */
export class FieldError extends Error {
  override readonly name = 'FieldError';
  constructor(field: string, what: string) {
    super(`${field}: ${what}`);
  }
}

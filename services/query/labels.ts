/** Label expressions: `app=payments,env=prod|uat,loc!=fra`. */
import type { LabelTerm } from './filters.ts';

/** Most terms in one expression, and most values in one term. */
export const maxLabelTerms = 20;
export const maxLabelValues = 50;

export const labelForms = 'key=value terms joined by commas, such as app=payments,env=prod|uat,loc!=fra';

/** The terms of an expression, or what is wrong with it. */
export function parseLabels(text: string): readonly LabelTerm[] | { readonly wrong: string } {
  const terms: LabelTerm[] = [];
  for (const part of text.split(',')) {
    const match = /^\s*([^\s=!|]{1,128})\s*(!?=)\s*(.*?)\s*$/.exec(part);
    if (match === null) return { wrong: `"${part.trim()}" is no term` };
    const values = (match[3] ?? '').split('|').map((value) => value.trim());
    if (values.length > maxLabelValues) return { wrong: `more than ${maxLabelValues} values for one key` };
    terms.push({ key: match[1] ?? '', negated: match[2] === '!=', values });
  }
  if (terms.length > maxLabelTerms) return { wrong: `more than ${maxLabelTerms} terms` };
  return terms;
}

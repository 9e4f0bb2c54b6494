/** The filter box and the address bar: what is asked, as parameters of the API and as the state of the page. */

/** Parameters of /api/v1/unknown that may be typed. */
const known = new Set([
  'app', 'namespace', 'cluster', 'src', 'dst', 'ip', 'src_ip', 'dst_ip', 'port', 'protocol', 'reason', 'direction', 'severity', 'sort',
  'src_identity', 'dst_identity',
]);

const isParameter = (key) => known.has(key) || /^(src|dst)_/.test(key);

/** Splits what was typed into parameters of the API and words to look for in the rows. */
export function readFilter(typed) {
  const parameters = {};
  const words = [];
  for (const token of typed.split(/\s+/).filter((each) => each !== '')) {
    const at = token.indexOf('=');
    const key = token.slice(0, at);
    if (at > 0 && isParameter(key)) parameters[key] = token.slice(at + 1);
    else words.push(token.toLowerCase());
  }
  return { parameters, words };
}

/** The state of the page. Links (those of alerts, say) may carry parameters of the API: they become words of the filter. */
export function readState(search) {
  const state = new URLSearchParams(search);
  const linked = [...state].filter(([key]) => isParameter(key)).map(([key, value]) => `${key}=${value}`);
  return { filter: [state.get('q') ?? '', ...linked].filter((part) => part !== '').join(' '), since: state.get('since') ?? '24h', edge: state.get('edge') ?? '' };
}

export function writeState({ filter, since, edge }) {
  const state = new URLSearchParams();
  if (filter !== '') state.set('q', filter);
  if (since !== '24h') state.set('since', since);
  if (edge !== '') state.set('edge', edge);
  const text = state.toString();
  return text === '' ? '/' : `/?${text}`;
}

/** What tells one edge of the list from another. */
export const edgeKey = (edge) =>
  [edge.source.identity, edge.source.workload === null ? edge.source.address : '', edge.destination.identity,
    edge.destination.workload === null ? edge.destination.address : '', edge.port, edge.protocol].join('~');

/** The parameters that ask for the single connections of an edge. */
export function evidenceParameters(edge, since) {
  return {
    verdict: 'unexplained',
    src_identity: edge.source.identity,
    dst_identity: edge.destination.identity,
    port: String(edge.port),
    protocol: edge.protocol,
    ...(edge.source.workload === null && edge.source.address !== null ? { src_ip: edge.source.address } : {}),
    ...(edge.destination.workload === null && edge.destination.address !== null ? { dst_ip: edge.destination.address } : {}),
    since,
    limit: '50',
  };
}

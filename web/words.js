/** How times, numbers and ends of connections are put into words. Pure functions. */

const byteUnits = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'];

export function bytesText(bytes) {
  let value = bytes;
  let unit = 0;
  while (value >= 999.5 && unit < byteUnits.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${unit === 0 || value >= 99.5 ? Math.round(value) : value.toFixed(1)} ${byteUnits[unit]}`;
}

export const countText = (count) => String(count).replace(/\B(?=(\d{3})+$)/g, ',');

export const plural = (count, one, many) => `${countText(count)} ${count === 1 ? one : many}`;

export function agoText(iso, nowMs) {
  if (iso === null) return '–';
  const seconds = Math.max(0, Math.round((nowMs - Date.parse(iso)) / 1000));
  if (seconds < 100) return `${seconds} s ago`;
  if (seconds < 6000) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 172_800) return `${Math.round(seconds / 3600)} h ago`;
  return `${Math.round(seconds / 86_400)} d ago`;
}

/** Never rounds up to what is not reached. */
export function shareText(share) {
  if (share === null) return '–';
  return share === 1 ? '100 %' : `${(Math.floor(share * 1000) / 10).toFixed(1)} %`;
}

export function labelsText(labels) {
  return ['app', 'role', 'env', 'loc']
    .map((key) => labels[key] ?? '')
    .filter((value) => value !== '')
    .join('/');
}

export const placeText = (end) => [end.cluster, end.namespace].filter((part) => part !== '').join('/');

/** Who it is: labels if there are any, else a name, else an address. */
export function whoText(end) {
  return labelsText(end.labels) || end.name || (placeText(end) === '' ? (end.address ?? end.kind) : `${end.kind} in ${placeText(end)}`);
}

/** What else is known of an end, beside who it is. */
export function moreText(end, dns) {
  const who = whoText(end);
  return [dns, end.workload ?? end.name, placeText(end), end.address]
    .filter((part, at, all) => part && part !== who && all.indexOf(part) === at)
    .join(' · ');
}

export const reasonWords = {
  'no-rule': 'Both ends are known and in scope, and no rule speaks of the pair.',
  'port-not-covered': 'A rule allows the pair, but not on this port or protocol.',
  'unknown-source': 'The source address belonged to no known workload, service or range at that time.',
  'unknown-destination': 'The destination address belonged to no known workload, service or range at that time.',
  'outside-scope': 'Neither end is in the scope of any ruleset.',
};

export const directionWords = {
  'leaves-estate': 'It leaves the estate.',
  'enters-estate': 'It enters the estate from outside.',
  'cross-cluster': 'It goes from one cluster to another.',
  datacentre: 'It joins a cluster with a machine or range of the data centre.',
  internal: 'It stays inside.',
};

/** In single quotes for a POSIX shell. */
export const shellQuote = (text) => (/^[\w./:=@%+,|-]+$/.test(text) && !text.includes('|') ? text : `'${text.replaceAll("'", "'\\''")}'`);

/** The page: asks every two seconds for what nobody can explain, and shows the evidence for one edge. */
import { edgeKey, evidenceParameters, readFilter, readState, writeState } from './question.js';
import {
  agoText, bytesText, countText, directionWords, moreText, plural, reasonWords, shareText, shellQuote, whoText,
} from './words.js';

const refreshMs = 2000;
const coverageMs = 10_000;
const listLimit = 500;
/** An edge first seen this recently is marked as new. */
const newMs = 120_000;

const byId = (id) => document.getElementById(id);
const state = readState(location.search);
let answer = null;
let coverage = null;
let coverageAt = 0;
let isLink = new URLSearchParams(location.search).has('src_identity');
let asking = null;
let timer = 0;
let shown = '';
let evidenceOf = '';
let answeredAt = 0;

function element(name, options = {}, children = []) {
  const { text, ...properties } = options;
  const made = Object.assign(document.createElement(name), properties);
  if (text !== undefined) made.textContent = text;
  made.append(...children);
  return made;
}

async function ask(path, parameters, signal) {
  const response = await fetch(`${path}?${new URLSearchParams(parameters)}`, { signal, headers: { accept: 'application/json' } });
  const body = await response.json().catch(() => ({ detail: `the answer (${response.status}) is no JSON` }));
  if (!response.ok) throw new Error(body.detail ?? `status ${response.status}`);
  return body;
}

function say(text, bad = false) {
  byId('state').textContent = text;
  byId('state').classList.toggle('bad', bad);
}

function fact(id, text, tone = '', title = '') {
  const value = byId(id).querySelector('dd');
  value.textContent = text;
  value.className = tone;
  value.title = title;
}

function showFacts() {
  const now = Date.now();
  const { completeness } = answer;
  const silent = completeness.agentsSilent > 0 ? `, ${countText(completeness.agentsSilent)} silent` : '';
  fact('unexplained', plural(answer.total, 'edge', 'edges'), answer.total > 0 ? 'bad' : 'good');
  fact('agents', `${countText(completeness.agentsReporting)} reporting${silent}`, silent === '' && completeness.agentsReporting > 0 ? '' : 'warn');
  const lost = completeness.batchesMissing + completeness.flowsDropped;
  fact('missing', lost === 0 ? 'nothing known' : `${plural(completeness.batchesMissing, 'batch', 'batches')}, ${plural(completeness.flowsDropped, 'flow', 'flows')}`, lost === 0 ? '' : 'warn');
  const late = completeness.freshestTo === null || now - Date.parse(completeness.freshestTo) > 60_000;
  const delay = completeness.delayMsP99 === null ? '' : `99 of 100 flows could be asked for within ${(completeness.delayMsP99 / 1000).toFixed(1)} s of their end`;
  fact('fresh', completeness.freshestTo === null ? 'no flows yet' : agoText(completeness.freshestTo, now), late ? 'warn' : '', delay);
  if (coverage === null) return;
  const { connections, bytes, edges } = coverage.total.coverage;
  const tone = connections === null ? '' : connections >= 0.95 ? 'good' : connections >= 0.5 ? 'warn' : 'bad';
  fact('coverage', connections === null ? 'no connections yet' : `${shareText(connections)} of connections, ${shareText(bytes)} of bytes, ${shareText(edges)} of edges`, tone);
}

function rowOf(edge, now) {
  const key = edgeKey(edge);
  const isNew = edge.firstSeen !== null && now - Date.parse(edge.firstSeen) < newMs;
  const who = (end, dns) => {
    const more = moreText(end, dns);
    return element('td', { className: 'who', title: `${whoText(end)}\n${more}` }, [
      element('b', { text: whoText(end) }),
      element('span', { className: 'soft', text: more }),
    ]);
  };
  const row = element('tr', { tabIndex: 0 }, [
    element('td', { className: edge.severity, text: edge.severity }),
    who(edge.source, edge.process),
    who(edge.destination, edge.dns),
    element('td', { text: `${edge.port}/${edge.protocol}` }),
    element('td', { text: edge.reason, title: reasonWords[edge.reason] ?? '' }),
    element('td', { className: `number${isNew ? ' new' : ''}`, text: agoText(edge.firstSeen, now), title: edge.firstSeen ?? '' }),
    element('td', { className: 'number', text: agoText(edge.lastSeen, now), title: edge.lastSeen ?? '' }),
    element('td', { className: 'number', text: countText(edge.connections) }),
    element('td', { className: 'number', text: bytesText(edge.bytesForward + edge.bytesReverse) }),
  ]);
  row.dataset.edge = key;
  row.setAttribute('aria-selected', String(key === state.edge));
  return row;
}

function showRows() {
  const { words } = readFilter(state.filter);
  const now = Date.now();
  const kept = answer.items.filter((edge) => {
    const text = [whoText(edge.source), moreText(edge.source, edge.process), whoText(edge.destination), moreText(edge.destination, edge.dns), edge.port, edge.protocol, edge.reason, edge.severity, edge.direction].join(' ').toLowerCase();
    return words.every((word) => text.includes(word));
  });
  const rows = kept.map((edge) => rowOf(edge, now));
  const next = rows.map((row) => row.outerHTML).join('');
  if (next !== shown) {
    const focused = document.activeElement?.closest?.('#rows tr')?.dataset.edge;
    byId('rows').replaceChildren(...rows);
    if (focused !== undefined) rows.find((row) => row.dataset.edge === focused)?.focus({ preventScroll: true });
    shown = next;
  }
  const none = kept.length === 0;
  byId('empty').hidden = !none;
  if (none) byId('empty').textContent = emptyText();
  const of = kept.length === answer.total ? '' : ` of ${countText(answer.total)}`;
  say(`${countText(kept.length)}${of} edges, from ${answer.table}`);
}

function emptyText() {
  if (answer.total > 0) return 'No unexplained connection matches the filter.';
  if (answer.completeness.freshestTo === null) return 'No flows were received in this time. `npx eastwest doctor` says what is amiss.';
  return 'Rules explain every connection of this time that the filter lets through.';
}

function commandLine(text) {
  const copy = element('button', { type: 'button', text: 'copy' });
  copy.addEventListener('click', async () => {
    await navigator.clipboard.writeText(text);
    copy.textContent = 'copied';
  });
  return element('pre', {}, [element('code', { text }), copy]);
}

/** The labels of an end as `eastwest` takes them, or an empty text where it has none. */
function labelFilter(end) {
  return Object.entries(end.labels).filter(([key, value]) => ['app', 'role', 'env', 'loc'].includes(key) && !/[,|\s]/.test(value)).map(([key, value]) => `${key}=${value}`).join(',');
}

function commandsOf(edge, parameters) {
  const curl = `curl -s ${shellQuote(`${location.origin}/api/v1/connections?${new URLSearchParams(parameters)}`)}`;
  const options = ['--verdict unexplained', `--port ${edge.port}`, `--protocol ${edge.protocol}`, `--since ${state.since}`];
  for (const [option, end] of [['--src', edge.source], ['--dst', edge.destination]]) {
    const labels = labelFilter(end);
    if (labels !== '') options.push(`${option} ${shellQuote(labels)}`);
    else if (end.address !== null && !options.some((each) => each.startsWith('--ip'))) options.push(`--ip ${end.address}`);
  }
  return [commandLine(curl), commandLine(`npx eastwest connections ${options.join(' ')}`)];
}

function connectionRow(item, now) {
  const end = (one) => element('td', { className: 'who', title: one.address ?? '' }, [
    element('b', { text: one.workload ?? whoText(one) }), element('span', { className: 'soft', text: one.address ?? '' })]);
  return element('tr', {}, [
    element('td', { className: 'number', text: agoText(item.lastSeen, now), title: item.lastSeen ?? '' }),
    end(item.source), end(item.destination),
    element('td', { className: 'soft how', text: [item.process, item.dns, item.serviceAddress === null ? null : `via ${item.serviceAddress}`, `seen by ${item.sides.join(' and ')}`, item.ambiguous > 0 ? 'a name is not certain' : null, item.dropped > 0 ? 'dropped by the network' : null].filter((part) => part).join(', ') }),
    element('td', { className: 'number', text: countText(item.connections) }),
    element('td', { className: 'number', text: bytesText(item.bytesForward + item.bytesReverse) }),
  ]);
}

function connectionTable(list) {
  const now = Date.now();
  const titles = ['last seen', 'source', 'destination', 'how', 'connections', 'bytes'];
  const head = titles.map((text) => element('th', { text, className: ['last seen', 'connections', 'bytes'].includes(text) ? 'number' : '' }));
  return element('table', {}, [
    element('thead', {}, [element('tr', {}, head)]),
    element('tbody', {}, list.items.map((item) => connectionRow(item, now))),
  ]);
}

async function showEvidence() {
  const aside = byId('evidence');
  const edge = answer?.items.find((each) => edgeKey(each) === state.edge);
  aside.hidden = edge === undefined;
  if (edge === undefined) {
    evidenceOf = '';
    return;
  }
  const mark = `${state.edge} ${state.since} ${edge.lastSeen} ${edge.connections}`;
  if (mark === evidenceOf) return;
  evidenceOf = mark;
  const parameters = evidenceParameters(edge, state.since);
  let found;
  try {
    found = await ask('/api/v1/connections', parameters);
  } catch (error) {
    found = error;
  }
  if (evidenceOf !== mark) return;
  const close = element('button', { className: 'close', type: 'button', text: 'close', title: 'Esc' });
  close.addEventListener('click', () => open(''));
  const labels = (end) => Object.entries(end.labels).map(([key, value]) => `${key}=${value}`).join(' ') || 'no labels';
  const selected = String(getSelection());
  if (selected !== '' && aside.contains(getSelection().anchorNode)) return;
  aside.replaceChildren(
    close,
    element('h2', {}, [`${whoText(edge.source)} → ${whoText(edge.destination)} `, element('span', { className: edge.severity, text: `${edge.port}/${edge.protocol}` })]),
    element('p', { text: `${reasonWords[edge.reason] ?? edge.reason} ${directionWords[edge.direction] ?? ''}` }),
    element('p', { className: 'soft', text: `first seen ${edge.firstSeen ?? 'unknown'}, last seen ${edge.lastSeen ?? 'unknown'}` }),
    element('h3', { text: 'Labels' }),
    element('p', {}, [element('b', { text: 'source ' }), labels(edge.source)]),
    element('p', {}, [element('b', { text: 'destination ' }), labels(edge.destination)]),
    element('h3', { text: found instanceof Error ? 'Connections' : `Connections, ${countText(found.items.length)} of ${countText(found.total)}` }),
    found instanceof Error ? element('p', { className: 'high', text: found.message }) : connectionTable(found),
    element('h3', { text: 'The same from a terminal' }),
    element('div', { className: 'commands' }, commandsOf(edge, parameters)),
  );
}

function open(key, push = true) {
  state.edge = key;
  if (push) history.pushState(null, '', writeState(state));
  for (const row of byId('rows').children) row.setAttribute('aria-selected', String(row.dataset.edge === key));
  shown = '';
  showEvidence();
}

async function refresh() {
  clearTimeout(timer);
  asking?.abort();
  const mine = new AbortController();
  asking = mine;
  try {
    const { parameters } = readFilter(state.filter);
    const question = { ...parameters, since: state.since };
    const wantsCoverage = Date.now() - coverageAt > coverageMs;
    const [unknown, covered] = await Promise.all([
      ask('/api/v1/unknown', { ...question, limit: String(listLimit) }, mine.signal),
      wantsCoverage ? ask('/api/v1/coverage', { since: state.since, top: '0' }, mine.signal) : coverage,
    ]);
    if (wantsCoverage) coverageAt = Date.now();
    answer = unknown;
    coverage = covered;
    answeredAt = Date.now();
    // A link to one edge shows its evidence at once.
    if (isLink && state.edge === '' && answer.items.length === 1) state.edge = edgeKey(answer.items[0]);
    isLink = false;
    showFacts();
    showRows();
    await showEvidence();
  } catch (error) {
    if (mine.signal.aborted) return;
    const age = answeredAt === 0 ? '' : ` What you see is ${Math.round((Date.now() - answeredAt) / 1000)} s old.`;
    say(`${error.message}.${age}`.replace('..', '.'), true);
  }
  if (asking === mine && !document.hidden) timer = setTimeout(refresh, refreshMs);
}

function changed() {
  state.filter = byId('filter').value.trim();
  state.since = byId('since').value;
  history.replaceState(null, '', writeState(state));
  coverageAt = 0;
  refresh();
}

function showState() {
  byId('filter').value = state.filter;
  if (![...byId('since').options].some((option) => option.value === state.since)) byId('since').add(new Option(state.since, state.since));
  byId('since').value = state.since;
}

let typing = 0;
byId('ask').addEventListener('submit', (event) => event.preventDefault());
byId('filter').addEventListener('input', () => {
  clearTimeout(typing);
  typing = setTimeout(changed, 250);
});
byId('since').addEventListener('change', changed);
byId('rows').addEventListener('click', (event) => open(event.target.closest('tr').dataset.edge));
byId('rows').addEventListener('keydown', (event) => {
  const row = event.target.closest('tr');
  if (event.key === 'Enter') open(row.dataset.edge);
  if (event.key === 'ArrowDown') row.nextElementSibling?.focus();
  if (event.key === 'ArrowUp') row.previousElementSibling?.focus();
});
document.addEventListener('keydown', (event) => {
  if (event.key === 'Escape' && state.edge !== '') open('');
  if (event.key === '/' && document.activeElement !== byId('filter')) {
    event.preventDefault();
    byId('filter').focus();
  }
});
document.addEventListener('visibilitychange', () => (document.hidden ? clearTimeout(timer) : refresh()));
addEventListener('popstate', () => {
  Object.assign(state, readState(location.search));
  showState();
  refresh();
});
showState();
refresh();

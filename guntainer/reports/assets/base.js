// What all parts of the page use: elements made of text, words for numbers, the jobs by their ids.
// Whatever comes from a job gets into the page as the text of a text node, or as an attribute of a fixed name. Never as markup.

const facts = JSON.parse(document.getElementById('facts').textContent);
const jobs = facts.jobs;
const byId = new Map();
jobs.forEach((job, place) => {
  job.place = place;
  job.verdict = job.allowed ? `${job.outcome} (allowed)` : job.outcome;
  job.wall = job.wall || 0;
  job.matrix = job.matrix || [];
  byId.set(job.id, job);
});

const OUTCOMES = ['failed', 'timeout', 'oom', 'pids-limit', 'error', 'flaky', 'ok', 'cancelled', 'skipped'];
const SYMBOLS = {
  ok: '✓', flaky: '~', failed: '✕', timeout: 'T', oom: 'M', 'pids-limit': 'P', error: '!', cancelled: '–', skipped: '›',
};

const $ = (id) => document.getElementById(id);

function el(tag, settings, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(settings || {})) {
    if (name === 'class') made.className = value;
    else if (name === 'on') for (const [event, heard] of Object.entries(value)) made.addEventListener(event, heard);
    else if (value === true) made.setAttribute(name, '');
    else if (value !== false && value !== undefined && value !== null) made.setAttribute(name, value);
  }
  for (const child of children.flat(3)) if (child !== null && child !== undefined) made.append(child);
  return made;
}

// Control characters, those that turn the direction of writing, and those that take no room: shown, not obeyed.
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g;
const UNSEEN_RUN = new RegExp(`${UNSEEN.source}+`, 'g');
const MOST_UNSEEN = 200; // elements for them in one text, and characters in one element
const unseen = (c) => (c < ' ' ? `^${String.fromCharCode(0x40 + c.charCodeAt(0))}` : c === '\u007f' ? '^?' : `U+${c.charCodeAt(0).toString(16).toUpperCase().padStart(4, '0')}`);
// For titles and labels, which are text alone.
const plain = (text) => text.replace(UNSEEN, unseen);

// Long names differ at their ends more often than in their midst.
function middle(text, most) {
  if (text.length <= most) return text;
  const half = Math.floor((most - 1) / 2);
  const cut = (from, to) => text.slice(from, to).replace(/^[\udc00-\udfff]|[\ud800-\udbff]$/g, ''); // no half of a pair
  return `${cut(0, half)}…${cut(text.length - half)}`;
}

// A name, isolated from its surroundings: it can turn no direction but its own.
function name(text) {
  const made = el('bdi', {});
  put(made, text);
  return made;
}

// Unseen characters in a row: each, or how many there are of one that comes again and again.
function unseenRun(run) {
  if (run.length === 1) return unseen(run);
  const shown = run.replace(/([^])\1{8,}/g, (same, c) => ` ${unseen(c)} × ${same.length} `);
  const cut = shown.length > MOST_UNSEEN ? `${shown.slice(0, MOST_UNSEEN)} …` : shown;
  return cut.replace(UNSEEN, (c) => (c < '\u0080' ? unseen(c) : ` ${unseen(c)} `)).replace(/ {2,}/g, ' ').trim();
}

// The text as text nodes, with an element for each run of unseen characters; where there are very many runs, the rest in one.
function put(into, text) {
  let at = 0;
  let count = 0;
  for (const found of text.matchAll(UNSEEN_RUN)) {
    if (found[0] === '\u200d' && found.index > 0) continue; // joins emoji
    if (count === MOST_UNSEEN) { into.append(plain(text.slice(at))); return; }
    count += 1;
    if (found.index > at) into.append(text.slice(at, found.index));
    into.append(el('span', { class: 'ctl' }, unseenRun(found[0])));
    at = found.index + found[0].length;
  }
  if (at < text.length) into.append(at ? text.slice(at) : text);
}

function duration(ms) {
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60000) return `${(ms / 1000).toFixed(2)} s`;
  const seconds = Math.round(ms / 1000);
  const minutes = Math.floor(seconds / 60);
  return minutes < 60 ? `${minutes} min ${seconds % 60} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

function bytes(count) {
  let value = count;
  for (const unit of ['B', 'KiB', 'MiB', 'GiB']) {
    if (value < 1024 || unit === 'GiB') return unit === 'B' ? `${value} B` : `${value.toFixed(value < 10 ? 1 : 0)} ${unit}`;
    value /= 1024;
  }
  return '';
}

function moment(seconds) {
  return new Date(seconds * 1000).toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'medium' });
}

// The panel is then not beside the page but instead of it.
const narrow = () => matchMedia('(max-width: 1100px)').matches;

const plural = (count, word) => `${count.toLocaleString('en')} ${word}${count === 1 ? '' : 's'}`;
const classOf = (job) => `o-${job.outcome}${job.allowed ? ' allowed' : ''}`;
const hrefOf = (job) => `#job=${encodeURIComponent(job.id)}`;
// The outcome and why, without saying a word twice: "timeout after 5 s".
function saidOf(job) {
  if (!job.why) return job.verdict;
  return job.why.startsWith(job.outcome) ? `${job.why}${job.allowed ? ' (allowed)' : ''}` : `${job.verdict}: ${job.why}`;
}
const titleOf = (job) => plain(`${job.id}: ${saidOf(job)}${job.wall ? `, ${duration(job.wall)}` : ''}`);
const symbol = (job) => el('span', { class: `sym ${classOf(job)}`, 'aria-hidden': 'true' }, SYMBOLS[job.outcome] || '?');
const failing = (job) => !job.allowed && !['ok', 'flaky', 'skipped', 'cancelled'].includes(job.outcome);

// Phases of a job as [name, from, to], in milliseconds since the batch began.
function phasesOf(job) {
  let at = job.begin || 0;
  const found = [];
  for (const phase of ['wait', 'prepare', 'queue']) {
    const took = job[phase] || 0;
    if (took > 0.05) found.push([phase, at, at + took]);
    at += took;
  }
  const launch = Math.min(job.launch || 0, job.wall);
  if (launch) found.push(['launch', at, at + launch]);
  if (job.wall > launch) found.push(['run', at + launch, at + job.wall]);
  return found;
}

function remember(key, value) {
  try { localStorage.setItem(`guntainer-${key}`, value); } catch { /* a page from a file may have no storage */ }
}
function remembered(key) {
  try { return localStorage.getItem(`guntainer-${key}`); } catch { return null; }
}

const current = { job: null, words: [], outcomes: new Set(), shown: jobs };

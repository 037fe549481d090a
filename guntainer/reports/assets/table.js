// The table of all jobs: sorted, filtered, and where there are many only those rows in the page that are on the screen.

const ALL_ROWS = 500; // up to so many are in the page together, where the browser's own search finds them
const ROW = 30; // --row
const BARS = 10; // earlier runs in a row; the panel has all
const table = { sort: 'place', down: false, first: -1, last: -1, cursor: null, covered: 0 };

const COLUMNS = [
  ['outcome', 'Outcome', (job) => OUTCOMES.indexOf(job.outcome) + (job.allowed ? 0.5 : 0)],
  ['job', 'Job', (job) => job.id],
  ['why', 'Why', (job) => job.why || ''],
  ['code', 'Exit', (job) => (job.code === undefined ? (job.outcome === 'ok' || job.outcome === 'flaky' ? 0 : -1) : job.code)],
  ['time', 'Time', (job) => job.wall],
  ['runs', 'Last runs', (job) => change(job) || 0],
  ['cpu', 'CPU', (job) => job.cpu || 0],
  ['memory', 'Memory', (job) => job.rss || 0],
];
const NUMBERS = ['code', 'time', 'cpu', 'memory'];
const tellsMore = (job) => job.why && job.why !== `exit ${job.code}`;
// Columns that have something for no job are not shown.
for (const [key, has] of [['why', tellsMore], ['runs', (job) => job.runs], ['cpu', (job) => job.cpu], ['memory', (job) => job.rss]]) {
  if (!jobs.some(has)) COLUMNS.splice(COLUMNS.findIndex((column) => column[0] === key), 1);
}
const longest = Math.max(1, ...[...new Set(jobs.map((job) => job.wall))].slice(0, 100000));

// How much longer a job took than the median of its good runs before; null where there is none.
function change(job) {
  const good = (job.runs || []).filter((run) => run[0] && (run[1] === 'ok' || run[1] === 'flaky')).map((run) => run[0]).sort((a, b) => a - b);
  if (!good.length || !job.wall) return null;
  return job.wall / good[Math.floor(good.length / 2)] - 1;
}

function delta(job) {
  const part = change(job);
  if (part === null) return null;
  const much = Math.abs(part) > 0.2 && Math.abs(job.wall - job.wall / (1 + part)) > 100;
  const sign = Math.abs(part) < 0.005 ? '±' : part > 0 ? '+' : '−';
  const text = `${sign}${Math.abs(part) >= 9.995 ? `${Math.round(Math.abs(part) + 1)}×` : `${Math.round(Math.abs(part) * 100)} %`}`;
  return el('span', { class: `delta${much ? (part > 0 ? ' slow' : ' fast') : ''}`, title: 'against the median of its good runs before' }, text);
}

// A bar per run, the oldest first, this one last.
function spark(job, height) {
  const large = height > 20;
  const runs = [...(job.runs || []).slice(large ? 0 : -BARS), [job.wall, job.outcome]];
  const most = Math.max(1, ...runs.map((run) => run[0]));
  const wide = large ? 9 : 4;
  const made = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  const set = (element, values) => Object.entries(values).forEach(([key, value]) => element.setAttribute(key, value));
  set(made, { class: 'runs', width: runs.length * (wide + 1), height, role: 'img', 'aria-label': `${runs.length - 1} earlier runs` });
  runs.forEach(([wall, outcome], place) => {
    const tall = Math.max(2, Math.round((wall / most) * height));
    const bar = document.createElementNS('http://www.w3.org/2000/svg', 'rect');
    set(bar, { class: `o-${outcome}`, x: place * (wide + 1), y: height - tall, width: wide, height: tall });
    if (place < runs.length - 1) bar.setAttribute('opacity', '0.6');
    const title = document.createElementNS('http://www.w3.org/2000/svg', 'title');
    title.textContent = `${outcome}, ${duration(wall)}`;
    bar.append(title);
    made.append(bar);
  });
  return made;
}

function tableCell(job, key) {
  if (key === 'outcome') return el('span', { class: 'outcome' }, symbol(job), el('span', { class: 'word' }, job.verdict));
  if (key === 'job') return el('a', { href: hrefOf(job), title: plain(job.id) }, name(job.id));
  if (key === 'why') return tellsMore(job) ? el('span', { class: 'dim', title: plain(job.why) }, name(job.why)) : '';
  if (key === 'code') { const code = COLUMNS.find((column) => column[0] === 'code')[2](job); return code < 0 ? '' : String(code); }
  if (key === 'cpu') return job.cpu ? duration(job.cpu) : '';
  if (key === 'memory') return job.rss ? bytes(job.rss) : '';
  if (key === 'runs') return job.runs ? el('span', {}, spark(job, 16), delta(job)) : '';
  if (!job.wall) return '';
  const meter = el('i', {});
  meter.style.width = `${Math.max(3, (job.wall / longest) * 100)}%`;
  return el('span', {}, el('span', { class: 'meter', 'aria-hidden': 'true' }, meter), el('span', { class: 'took' }, duration(job.wall)));
}

function rowOf(job, place) {
  const row = el('tr', { class: `${classOf(job)}${job === current.job || job === table.cursor ? ' here' : ''}`, 'aria-rowindex': place + 2 });
  row.job = job;
  for (const [key] of COLUMNS) row.append(el('td', { class: `c-${key}${NUMBERS.includes(key) ? ' num' : ''}` }, tableCell(job, key)));
  return row;
}

function space(rows) {
  const cellOf = el('td', { colspan: columnsShown() });
  cellOf.style.height = `${rows * ROW}px`;
  return el('tr', { class: 'space', 'aria-hidden': 'true' }, cellOf);
}

// Those that have room: a cell over more of them would make columns of its own.
const columnsShown = () => Math.max(1, [...$('table').tHead.rows[0].cells].filter((head) => head.offsetWidth).length);

// The link in a job's row; null where that row is not in the page.
function linkOf(job) {
  const row = [...$('table').tBodies[0].rows].find((one) => one.job === job);
  return row ? row.querySelector('a') : null;
}

// Put those rows into the page that can be seen.
function drawRows(again) {
  const count = current.shown.length;
  let first = 0;
  let last = count;
  if (count > ALL_ROWS) {
    const above = $('table').tBodies[0].getBoundingClientRect().top;
    first = Math.max(0, Math.min(count - 1, Math.floor(-above / ROW) - 30));
    last = Math.min(count, Math.ceil((innerHeight - above) / ROW) + 30);
    last = Math.max(last, Math.min(count, first + 60));
  }
  if (!again && first >= table.first && last <= table.last && (count <= ALL_ROWS || Math.abs(first - table.first) < 20)) return;
  if (!again && Math.abs(first - table.first) < 10 && last === table.last) return;
  table.first = first;
  table.last = last;
  const rows = current.shown.slice(first, last).map((job, place) => rowOf(job, first + place));
  if (first > 0) rows.unshift(space(first));
  if (last < count) rows.push(space(count - last));
  if (!count) rows.push(el('tr', { class: 'space' }, el('td', { colspan: columnsShown() }, el('p', { class: 'none dim' }, jobs.length ? 'no job is like that' : 'there are no jobs'))));
  const focused = document.activeElement?.closest('#table tbody tr');
  $('table').tBodies[0].replaceChildren(...rows);
  if (focused && focused.job && linkOf(focused.job)) linkOf(focused.job).focus({ preventScroll: true });
  $('table').setAttribute('aria-rowcount', count + 1);
}

const haystack = (job) => {
  if (!job.hay) {
    job.hay = [job.id, job.verdict, job.why || '', job.rootfs || '', ...job.matrix.map(([axis, value]) => `${axis}:${value}`), ...(job.notes || [])]
      .join('\n').toLowerCase();
  }
  return job.hay;
};

function sortRows() {
  const column = COLUMNS.find((one) => one[0] === table.sort);
  if (column) {
    const keyOf = column[2];
    const order = new Intl.Collator('en', { numeric: true }).compare;
    current.shown.sort((a, b) => {
      const [one, two] = [keyOf(a), keyOf(b)];
      const difference = typeof one === 'string' ? order(one, two) : one - two;
      return (table.down ? -difference : difference) || a.place - b.place;
    });
  }
}

function refilter() {
  const words = $('filter').value.toLowerCase().split(/\s+/).filter(Boolean);
  current.shown = jobs.filter((job) => (!current.outcomes.size || current.outcomes.has(job.verdict))
    && words.every((word) => haystack(job).includes(word)));
  sortRows();
  $('count').textContent = current.shown.length === jobs.length ? plural(jobs.length, 'job') : `${current.shown.length.toLocaleString('en')} of ${plural(jobs.length, 'job')}`;
  drawRows(true);
  markCells();
  if (line.mode === 'job') layOut();
  drawTimeline();
}

function sortBy(key) {
  const first = NUMBERS.includes(key) || key === 'runs';
  if (table.sort !== key) [table.sort, table.down] = [key, first];
  else if (table.down === first) table.down = !first;
  else table.sort = 'place'; // the third time: as in the job file
  markSorted();
  refilter();
}

function markSorted() {
  for (const head of $('table').tHead.querySelectorAll('th')) {
    if (head.dataset.key === table.sort) head.setAttribute('aria-sort', table.down ? 'descending' : 'ascending');
    else head.removeAttribute('aria-sort');
  }
}

function moveCursor(by) {
  const at = current.shown.indexOf(current.job || table.cursor);
  const job = current.shown[Math.max(0, Math.min(current.shown.length - 1, at < 0 ? 0 : at + by))];
  if (!job) return;
  table.cursor = job;
  if (current.job) open(job);
  if (current.job && narrow()) return;
  reveal(job);
  // Enter then follows the link; what is open keeps the focus
  if (!current.job || document.activeElement.closest('#table')) linkOf(job)?.focus({ preventScroll: true });
}

// Scroll the table to a job.
function reveal(job) {
  const at = current.shown.indexOf(job);
  if (at < 0) return;
  const body = $('table').tBodies[0].getBoundingClientRect();
  const top = body.top + at * ROW;
  if (top < table.covered || top + ROW > innerHeight) scrollBy({ top: top - innerHeight / 2 });
  drawRows(true);
}

// The head of the table stays below the line with the filter, however high that is.
function stick() {
  const high = Math.floor($('find').getBoundingClientRect().height) - 1; // no gap between the two
  $('table').style.setProperty('--above', `${high}px`);
  table.covered = high + $('table').tHead.offsetHeight;
}

function showTable() {
  const head = $('table').tHead.rows[0];
  for (const [key, title] of COLUMNS) {
    const button = el('button', { type: 'button', on: { click: () => sortBy(key) } }, title);
    head.append(el('th', { scope: 'col', class: `c-${key}${NUMBERS.includes(key) ? ' num' : ''}`, 'data-key': key }, button));
  }
  $('table').tBodies[0].addEventListener('click', (event) => {
    const row = event.target.closest('tr');
    if (row && row.job && !event.target.closest('a')) open(row.job);
  });
  if (jobs.some(failing)) table.sort = 'outcome'; // they would be lost among many
  markSorted();
  new ResizeObserver(stick).observe($('find'));
  $('filter').addEventListener('input', refilter);
  addEventListener('scroll', () => requestAnimationFrame(() => drawRows(false)), { passive: true });
  addEventListener('resize', () => drawRows(true));
}

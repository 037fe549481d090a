// One job: how it ended, when, its logs, and all else that is known of it. Its address is #job=<id>.

let wasAt = 0; // where the page was before a panel took its place
let opener = null; // what had the focus when the panel opened, and for which job
let shownLog = 0; // which of the requests for a log is the last one

function part(title, ...content) {
  return el('div', { class: 'part' }, el('h3', {}, title), content);
}

function phaseBar(job) {
  const phases = phasesOf(job);
  if (!phases.length) return null;
  const total = phases.reduce((sum, [, from, to]) => sum + to - from, 0) || 1;
  const bars = [];
  const keys = [];
  for (const [phase, from, to] of phases) {
    const colour = phase === 'run' ? 'var(--c)' : `var(--${phase})`;
    const bar = el('i', { title: `${phase} ${duration(to - from)}` });
    bar.style.flexGrow = String((to - from) / total);
    const key = el('span', { class: 'key' }, `${phase} ${duration(to - from)}`);
    if (phase !== 'run') { bar.style.setProperty('--c', colour); key.style.setProperty('--c', colour); }
    bars.push(bar);
    keys.push(key);
  }
  return part('Time', el('div', { class: `phases o-${job.outcome}`, 'aria-hidden': 'true' }, bars), el('div', { class: `keys o-${job.outcome}` }, keys));
}

function attemptsOf(job) {
  if (!job.attempts) return null;
  const rows = job.attempts.map((one, place) => el('li', {}, `attempt ${place + 1}: `, name(one.why), one.wall ? ` (${duration(one.wall)})` : ''));
  rows.push(el('li', {}, `attempt ${job.attempts.length + 1}: ${job.outcome === 'flaky' ? 'ok' : job.verdict}`, job.wall ? ` (${duration(job.wall)})` : ''));
  return part('Attempts', el('ul', { class: 'plain' }, rows));
}

function artifactsOf(job) {
  if (!job.artifacts) return null;
  const rows = job.artifacts.map(([path, size]) => {
    const linked = facts.links !== null && job.folder && !path.startsWith('/') && !path.split('/').includes('..');
    const label = name(path);
    return el('li', {}, linked ? el('a', { href: linkTo(`${job.folder}/artifacts/${path}`), target: '_blank', rel: 'noopener noreferrer' }, label) : label, el('span', { class: 'dim' }, `  ${bytes(size)}`));
  });
  return part('Artifacts', el('ul', { class: 'plain' }, rows));
}

function listOf(title, texts) {
  return texts ? part(title, el('ul', { class: 'plain' }, texts.map((text) => el('li', {}, name(text))))) : null;
}

// What stands behind the key of a job, all of whose cells are meant.
function cellsOf(key) {
  const count = jobs.filter((job) => job.key === key).length;
  return count > 1 ? ` · all ${count.toLocaleString('en')}` : '';
}

function needsOf(job) {
  if (!job.needs) return null;
  return part('Needs', el('div', { class: 'tags' }, job.needs.map((id) => {
    const other = byId.get(id);
    return other ? el('a', { class: `pill ${classOf(other)}`, href: hrefOf(other) }, symbol(other), name(id)) : el('span', { class: 'tag' }, name(id), cellsOf(id));
  })));
}

function runsOf(job) {
  if (!job.runs) return null;
  return part('Last runs', spark(job, 34), ' ', delta(job));
}

function factsOf(job) {
  const rows = [];
  const add = (key, value) => { if (value) rows.push(el('dt', {}, name(key)), el('dd', {}, name(String(value)))); };
  add('job', job.key);
  add('rootfs', job.rootfs);
  add('exit code', job.code);
  add('started', job.started ? moment(job.started) : '');
  add('slot', job.slot);
  add('processor time', job.cpu ? duration(job.cpu) : '');
  add('most memory', job.rss ? bytes(job.rss) : '');
  add('throttled', job.throttled ? duration(job.throttled) : '');
  add('killed for memory', job.oomKills ? plural(job.oomKills, 'time') : '');
  add('refused processes', job.pidsRefused);
  for (const [file, text] of job.limits || []) add(file, /^memory\./.test(file) && /^\d{4,15}$/.test(text) ? bytes(Number(text)) : text);
  add('isolation', job.isolation);
  add('ids', job.userns);
  add('writable layer', job.scratch);
  return part('Details', el('dl', {}, rows));
}

const tabName = ([stream, attempt]) => {
  const said = plain(stream.replace(/^services\/(.*)\.log$/, 'service $1'));
  return attempt ? `attempt ${attempt} ${said}` : said;
};

function logsOf(job) {
  if (!job.logs) return part('Log', el('p', { class: 'dim' }, job.wall ? 'it has printed nothing, or its log was not kept' : 'it has not run'));
  const view = new LogView();
  const input = el('input', { type: 'search', placeholder: 'find', 'aria-label': 'find in this log', autocomplete: 'off', spellcheck: 'false' });
  const count = el('span', { class: 'dim', role: 'status' });
  const tell = () => { count.textContent = view.needle ? (view.matches.length ? `${view.now + 1} of ${plural(view.matches.length, 'line')}` : 'nothing') : ''; };
  input.addEventListener('input', () => { view.find(input.value); tell(); });
  input.addEventListener('keydown', (event) => {
    if (event.key === 'Enter') { view.step(event.shiftKey ? -1 : 1); tell(); }
  });
  const wrap = el('button', { type: 'button', class: 'small', 'aria-pressed': 'true', on: { click: () => {
    const on = view.box.classList.toggle('nowrap');
    wrap.setAttribute('aria-pressed', String(!on));
  } } }, 'wrap');
  const ends = [['top', () => view.toTop()], ['end', () => view.toEnd()]].map(([word, go]) => el('button', { type: 'button', class: 'small', on: { click: go } }, word));
  const tabs = job.logs.map((place) => el('button', { type: 'button', class: 'small', title: tabName(place), on: { click: () => choose(place) } }, tabName(place)));
  async function choose(place) {
    shownLog += 1;
    const mine = shownLog;
    tabs.forEach((tab, at) => tab.setAttribute('aria-pressed', String(job.logs[at] === place)));
    try {
      const log = await logOf(place);
      if (mine !== shownLog) return;
      view.show(log);
      if (!view.needle && (place[1] || !['ok', 'flaky'].includes(job.outcome))) view.toEnd();
      tell();
    } catch (error) {
      view.box.replaceChildren(el('div', { class: 'cut' }, `this log can not be shown: ${error.message}`));
    }
  }
  if (current.needle) { input.value = current.needle; view.needle = current.needle.toLowerCase(); }
  const wanted = job.logs.find((place) => place === current.log);
  const complaint = job.code ? job.logs.find((place) => place[0] === 'stderr' && !place[1]) : null;
  choose(wanted || complaint || job.logs[0]);
  return part('Log', el('div', { class: 'tabs' }, el('span', { class: 'pills' }, tabs), input, count, el('span', { class: 'segments' }, ends), wrap), view.box);
}

function showPanel(job) {
  const panel = $('panel');
  if (!current.job) {
    wasAt = scrollY;
    opener = [document.activeElement, job];
  }
  current.job = job;
  document.body.classList.add('open');
  panel.hidden = false;
  const button = (sign, label, act) => el('button', { type: 'button', title: label, 'aria-label': label, on: { click: act } }, sign);
  panel.replaceChildren(
    el('div', { class: 'panel-top' }, symbol(job), el('h2', { id: 'panel-title' }, name(job.id)),
      el('div', { class: 'tools' }, button('↑', 'previous job (k)', () => moveCursor(-1)), button('↓', 'next job (j)', () => moveCursor(1)), button('×', 'close (Esc)', closePanel))),
    el('p', { class: 'said' }, name(saidOf(job))),
    job.matrix.length ? el('div', { class: 'tags' }, job.matrix.map(([axis, value]) => el('span', { class: 'tag' }, name(axis), ': ', name(value)))) : '',
    ...[phaseBar(job), listOf('Notes', job.notes), attemptsOf(job), logsOf(job), artifactsOf(job), needsOf(job), runsOf(job), factsOf(job)].filter(Boolean),
  );
  panel.scrollTop = 0;
  markCells();
  drawRows(true);
  drawTimeline();
}

function hidePanel() {
  if (!current.job) return;
  table.cursor = current.job;
  current.job = null;
  shownLog += 1;
  document.body.classList.remove('open');
  $('panel').hidden = true;
  $('panel').replaceChildren();
  if (narrow()) scrollTo(0, wasAt);
  markCells();
  drawRows(true);
  drawTimeline();
}

function open(job) {
  if (location.hash === hrefOf(job)) follow(); else location.hash = hrefOf(job);
}

// Close it, and leave all else where it is: the page, and what had the focus.
function closePanel() {
  const job = current.job;
  if (!job) return;
  history.pushState(null, '', location.href.split('#')[0]);
  const [element, first] = opener;
  hidePanel();
  const back = first === job && element !== document.body && element.isConnected ? element : linkOf(job);
  if (back) back.focus({ preventScroll: true });
}

// What the address says.
function follow() {
  const [key, value] = [location.hash.slice(1, 5), location.hash.slice(5)];
  if (key !== 'job=') { hidePanel(); return; }
  let id = value;
  try { id = decodeURIComponent(value); } catch { /* it stays as it is: no job has that name */ }
  const job = byId.get(id);
  if (!job) {
    hidePanel();
    $('count').textContent = `no job is called ${plain(id).slice(0, 100)}`;
    return;
  }
  showPanel(job);
  if (narrow()) scrollTo(0, 0);
  if (document.activeElement === document.body || narrow()) $('panel').focus({ preventScroll: true });
}

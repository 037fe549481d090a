// The page from its head to its foot, the keys, and what the address says.

function showHead() {
  document.title = plain(facts.name || facts.file || 'guntainer');
  $('name').replaceChildren(name(facts.name || facts.file || 'guntainer'));
  const about = [plural(jobs.length, 'job'), `in ${duration(facts.wall)}`];
  if (facts.parallel) about.push(`${facts.parallel} at a time`);
  if (facts.started) about.push(moment(facts.started));
  if (facts.name && facts.file) about.push(plain(facts.file));
  if (facts.signal) about.push(`ended by ${facts.signal}`);
  about.push(`exit code ${facts.code}`);
  $('about').textContent = about.join(' · ');
  const counts = new Map();
  for (const job of jobs) {
    if (!counts.has(job.verdict)) counts.set(job.verdict, [job, 0]);
    counts.get(job.verdict)[1] += 1;
  }
  const ordered = [...counts].sort((a, b) => OUTCOMES.indexOf(a[1][0].outcome) - OUTCOMES.indexOf(b[1][0].outcome) || a[0].length - b[0].length);
  $('bar').setAttribute('aria-label', ordered.map(([verdict, [, count]]) => `${count} ${verdict}`).join(', '));
  $('bar').replaceChildren(...ordered.map(([verdict, [job, count]]) => {
    const bar = el('i', { class: `o-${job.outcome}`, title: `${count} ${verdict}` });
    bar.style.flexGrow = String(count);
    if (job.allowed) bar.style.opacity = '0.55';
    return bar;
  }));
  $('chips').replaceChildren(...ordered.map(([verdict, [job, count]]) => {
    const chip = el('button', { type: 'button', class: `chip ${classOf(job)}`, 'aria-pressed': 'false' }, symbol(job), el('span', {}, el('b', {}, count.toLocaleString('en')), ` ${verdict}`));
    chip.addEventListener('click', () => {
      const on = !current.outcomes.has(verdict);
      if (on) current.outcomes.add(verdict); else current.outcomes.delete(verdict);
      chip.setAttribute('aria-pressed', String(on));
      refilter();
    });
    return chip;
  }));
  const bad = jobs.some(failing);
  $('icon').href = `data:image/svg+xml,${encodeURIComponent(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><circle cx="8" cy="8" r="7" fill="${bad ? '#c8322f' : '#2f8a4c'}"/></svg>`)}`;
}

const EXCERPT = 16 << 10; // characters of a log's end

async function showFirst() {
  const job = jobs.find(failing);
  if (!job) return;
  const box = $('first');
  box.hidden = false;
  box.className = `callout ${classOf(job)}`;
  const excerpt = el('div', { class: 'log excerpt', tabindex: '0', role: 'region', 'aria-label': 'the end of its log' });
  box.replaceChildren(el('h2', { id: 'first-title' }, 'First failure: ', el('a', { href: hrefOf(job) }, name(job.id))), el('p', { class: 'dim' }, name(saidOf(job))));
  const places = (job.logs || []).filter((place) => !place[1] && !place[0].startsWith('services/'));
  for (const place of places.reverse()) {
    const log = await logOf(place).catch(() => null);
    const text = log ? (log.tail || log.head).slice(-EXCERPT) : '';
    const lines = linesOf(text.length < EXCERPT ? text : text.slice(text.indexOf('\n') + 1)).slice(-8);
    if (!lines.some((runs) => textOf(runs).trim())) continue;
    excerpt.replaceChildren(...lines.map((runs) => lineElement(runs, '')));
    box.append(excerpt);
    excerpt.scrollTop = excerpt.scrollHeight;
    return;
  }
}

function showProblems() {
  if (!facts.problems.length) return;
  $('problems').hidden = false;
  $('problems').className = 'callout';
  $('problems').replaceChildren(el('h2', {}, 'About these results'), el('ul', {}, facts.problems.map((text) => el('li', {}, name(text)))));
}

function showComparison() {
  const compared = facts.comparison;
  if (!compared) return;
  const box = $('comparison');
  box.hidden = false;
  const parts = compared.parts.map(([title, rows]) => {
    const items = rows.slice(0, 1000).map(([id, what, linked]) => {
      const job = linked ? byId.get(id) : null;
      const called = el('span', { class: 'outcome' }, job ? symbol(job) : null, job ? el('a', { href: hrefOf(job) }, name(id)) : name(id));
      return el('li', { title: plain(`${id}: ${what}`) }, called, el('span', { class: 'dim' }, name(what)));
    });
    const few = items.splice(0, 8);
    const more = items.length ? el('details', {}, el('summary', {}, `${rows.length - few.length} more`), el('ul', { class: 'plain' }, items)) : '';
    return el('div', { class: 'part' }, el('h3', {}, `${title} · ${rows.length}`), el('ul', { class: 'plain' }, few), more);
  });
  const times = `${duration(compared.walls[0])} → ${duration(compared.walls[1])}`;
  box.replaceChildren(el('h2', {}, 'Against ', name(compared.before || 'the earlier run')), el('p', { class: 'dim' }, times), parts.length ? el('div', { class: 'parts' }, parts) : el('p', {}, 'no difference'));
}

function showHost() {
  if (!facts.facts.length) return;
  $('host').replaceChildren(el('h2', { id: 'host-title' }, 'Host'), el('dl', {}, facts.facts.map(([key, value]) => [el('dt', {}, name(key)), el('dd', {}, name(value))])));
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  drawTimeline();
}

function showTheme() {
  const system = matchMedia('(prefers-color-scheme: dark)');
  const chosen = () => { const found = remembered('theme'); return found === 'dark' || found === 'light' ? found : null; };
  document.documentElement.dataset.theme = chosen() || (system.matches ? 'dark' : 'light');
  system.addEventListener('change', () => { if (!chosen()) setTheme(system.matches ? 'dark' : 'light'); });
  $('theme').addEventListener('click', () => {
    const theme = document.documentElement.dataset.theme === 'dark' ? 'light' : 'dark';
    remember('theme', theme);
    setTheme(theme);
  });
}

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.closest('input');
  if (event.key === 'Escape') {
    if (typing && typing.value) return; // the browser empties it
    if (typing) typing.blur(); else closePanel();
  } else if (typing) {
    if (event.key === 'Enter' && typing === $('filter') && current.shown.length) open(current.shown[0]);
  } else if (event.key === '/') {
    event.preventDefault();
    if (document.body.classList.contains('open') && narrow()) closePanel();
    $('filter').focus();
    $('filter').select();
  } else if (event.key === 'j') moveCursor(1);
  else if (event.key === 'k') moveCursor(-1);
}

showTheme();
showHead();
showProblems();
showComparison();
showMatrix();
showTable();
showTimeline();
showSearch();
showHost();
refilter();
showFirst();
addEventListener('keydown', press);
addEventListener('hashchange', follow);
document.addEventListener('click', (event) => {
  const link = event.target.closest('a[href^="#job="]');
  if (!link) return;
  if (!link.classList.contains('hit')) { current.needle = ''; current.log = null; }
  if (link.getAttribute('href') === location.hash) follow();
});
if (location.hash.length > 1) { follow(); if (current.job && !narrow()) reveal(current.job); }
document.documentElement.dataset.ready = 'yes';

// A search through all logs: block after block, until there are enough hits or somebody searches for something else.

const MOST_HITS = 200;
let searching = 0;
let wanted = false; // the first hit is to be opened as soon as there is one

function hitOf(job, place, needle, lines, count) {
  const made = el('a', { class: 'hit', href: hrefOf(job) },
    el('span', { class: 'outcome' }, symbol(job), name(job.id), el('span', { class: 'dim' }, `${tabName(place)}, ${plural(count, 'line')}`)),
    lines.map((text) => {
      const shown = el('span', { class: 'mono' });
      const at = text.toLowerCase().indexOf(needle);
      const from = at > 60 ? at - 40 : 0;
      if (from) shown.append('… ');
      put(shown, text.slice(from, at));
      const mark = el('mark', {});
      put(mark, text.slice(at, at + needle.length));
      shown.append(mark);
      put(shown, text.slice(at + needle.length, at + needle.length + 200));
      return shown;
    }));
  made.addEventListener('click', () => {
    current.needle = $('grep').value;
    current.log = place;
    if (job === current.job) showPanel(job);
  });
  return made;
}

async function grep() {
  searching += 1;
  const mine = searching;
  const needle = $('grep').value.toLowerCase();
  const hits = $('hits');
  hits.hidden = !needle;
  current.needle = '';
  if (!needle) { hits.replaceChildren(); return; }
  const said = el('p', { class: 'dim' }, 'searching …');
  hits.replaceChildren(said);
  let found = 0;
  let looked = 0;
  for (const job of jobs) {
    for (const place of job.logs || []) {
      let log;
      try { log = await logOf(place); } catch { continue; }
      if (mine !== searching) return;
      const lines = [log.head, log.tail].flatMap(linesOf).map(textOf).filter((one) => one.toLowerCase().includes(needle));
      if (!lines.length) continue;
      found += 1;
      if (found <= MOST_HITS) hits.append(hitOf(job, place, needle, lines.slice(0, 3), lines.length));
      if (wanted) openFirst();
    }
    looked += 1;
    if (looked % 200 === 0) {
      said.textContent = `searching … ${Math.round((100 * looked) / jobs.length)} %, ${plural(found, 'log')} so far`;
      await new Promise((go) => { setTimeout(go, 0); });
      if (mine !== searching) return;
    }
  }
  said.textContent = found ? `${plural(found, 'log')}${found > MOST_HITS ? `, the first ${MOST_HITS} are shown` : ''}` : 'no log has that';
}

function openFirst() {
  const hit = $('hits').querySelector('.hit');
  wanted = !hit;
  if (hit) hit.click();
}

function showSearch() {
  if (!jobs.some((job) => job.logs)) { $('grep').hidden = true; return; }
  let timer = 0;
  const search = () => { timer = 0; grep(); };
  $('grep').addEventListener('input', () => { clearTimeout(timer); wanted = false; timer = setTimeout(search, 180); });
  $('grep').addEventListener('keydown', (event) => {
    if (event.key !== 'Enter' || !$('grep').value) return;
    if (timer) { clearTimeout(timer); search(); }
    openFirst();
  });
}

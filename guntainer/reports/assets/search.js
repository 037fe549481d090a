// A search through all logs: block after block, until there are enough hits or somebody searches for something else.

const MOST_HITS = 200;
let searching = 0;

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

const bare = (text) => text.replace(SEQUENCE, (found) => (found.endsWith('\n') ? '\n' : ''));

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
      const text = bare(`${log.head}\n${log.tail}`);
      if (!text.toLowerCase().includes(needle)) continue;
      const lines = text.split('\n').filter((one) => one.toLowerCase().includes(needle));
      if (!lines.length) continue;
      found += 1;
      if (found <= MOST_HITS) hits.append(hitOf(job, place, needle, lines.slice(0, 3), lines.length));
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

function showSearch() {
  if (!jobs.some((job) => job.logs)) { $('grep').hidden = true; return; }
  let timer = 0;
  $('grep').addEventListener('input', () => { clearTimeout(timer); timer = setTimeout(grep, 180); });
}

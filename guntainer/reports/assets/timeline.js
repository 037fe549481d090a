// Jobs over time. By slot: what ran in each slot, and in the gaps what the next job there was waiting for. By job: all phases
// of each, one below the other. Drag over a part to see it larger. Results of earlier batches have no place in this one's time.

const line = { mode: 'slot', from: 0, to: 1, rows: [], bars: [], height: 16, left: 44, top: 20, drag: null };
const MOST_ROWS = 1000;
const NAMED_ROWS = 300; // more are so low that names have no room
const timed = jobs.filter((job) => !job.earlier);

function endOfAll() {
  let end = facts.wall || 0;
  for (const job of timed) for (const phase of phasesOf(job)) end = Math.max(end, phase[2]);
  return Math.max(end, 1);
}

// Bars: [row, phase, from, to, job].
function layOut() {
  line.bars = [];
  line.rows = [];
  if (line.mode === 'slot') {
    const slots = new Map();
    for (const job of timed) {
      if (!job.slot || !job.wall) continue;
      if (!slots.has(job.slot)) slots.set(job.slot, []);
      slots.get(job.slot).push([job, phasesOf(job)]);
    }
    [...slots.keys()].sort((a, b) => a - b).forEach((slot, row) => {
      line.rows.push(String(slot));
      let free = 0;
      const ran = slots.get(slot).sort((a, b) => a[1][a[1].length - 1][2] - b[1][b[1].length - 1][2]);
      for (const [job, phases] of ran) {
        for (const [phase, from, to] of phases) if (to > free) line.bars.push([row, phase, Math.max(from, free), to, job]);
        free = Math.max(free, phases[phases.length - 1][2]);
      }
    });
  } else {
    const some = current.shown.filter((job) => !job.earlier && phasesOf(job).length)
      .sort((a, b) => (a.begin || 0) - (b.begin || 0) || a.place - b.place).slice(0, MOST_ROWS);
    some.forEach((job, row) => {
      line.rows.push(plain(job.id));
      for (const [phase, from, to] of phasesOf(job)) line.bars.push([row, phase, from, to, job]);
    });
  }
  const count = line.rows.length;
  line.height = line.mode === 'slot' ? Math.max(6, Math.min(22, Math.floor(320 / Math.max(1, count)))) : count > NAMED_ROWS ? 8 : 14;
}

function step(span) {
  const rough = span / 8;
  const unit = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].map((times) => times * unit).find((value) => value >= rough) || unit;
}

function tick(ms, by) {
  if (by >= 1000) return ms >= 120000 ? duration(ms) : `${(ms / 1000).toFixed(0)} s`;
  return by < 1 ? `${ms.toFixed(1)} ms` : ms >= 1000 ? `${(ms / 1000).toFixed(2)} s` : `${ms.toFixed(0)} ms`;
}

function drawTimeline() {
  const canvas = $('canvas');
  const box = $('canvas-box');
  const width = box.clientWidth;
  if (!width) return;
  const named = line.mode === 'job' && line.height >= 12;
  line.left = named ? Math.min(230, Math.floor(width * 0.3)) : line.mode === 'slot' ? 44 : 12;
  const height = line.top + line.rows.length * (line.height + 2) + 6;
  const ratio = Math.min(devicePixelRatio || 1, 16000 / height);
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  canvas.style.height = `${height}px`;
  const style = getComputedStyle(document.documentElement);
  const colour = (key) => style.getPropertyValue(`--${key}`).trim();
  const colours = { wait: colour('wait'), prepare: colour('prepare'), queue: colour('queue'), launch: colour('launch') };
  for (const outcome of OUTCOMES) colours[outcome] = colour(outcome === 'pids-limit' ? 'pids' : ['cancelled', 'skipped'].includes(outcome) ? 'off' : outcome);
  const pen = canvas.getContext('2d');
  pen.scale(ratio, ratio);
  pen.font = '11px system-ui, sans-serif';
  line.scale = (width - line.left - 8) / (line.to - line.from);
  const x = (ms) => line.left + (ms - line.from) * line.scale;
  const by = step(line.to - line.from);
  pen.fillStyle = colour('dim');
  pen.strokeStyle = colour('line');
  for (let ms = Math.ceil(line.from / by) * by; ms <= line.to; ms += by) {
    pen.beginPath(); pen.moveTo(x(ms), line.top - 4); pen.lineTo(x(ms), height); pen.stroke();
    if (x(ms) + 40 < width || ms === 0) pen.fillText(tick(ms, by), x(ms) + 3, 12);
  }
  line.rows.forEach((label, row) => {
    const y = line.top + row * (line.height + 2) + Math.min(line.height, 12);
    if (named) pen.fillText(fitted(pen, label, line.left - 20), 12, y - 1);
    else if (line.mode === 'slot' && (line.height >= 9 || row % 4 === 0)) pen.fillText(label, 12, y);
  });
  pen.save();
  pen.beginPath(); pen.rect(line.left, 0, width - line.left, height); pen.clip();
  const shown = current.shown.length === jobs.length ? null : new Set(current.shown);
  for (const [row, phase, from, to, job] of line.bars) {
    if (to < line.from || from > line.to) continue;
    pen.globalAlpha = shown && !shown.has(job) ? 0.18 : 1;
    pen.fillStyle = phase === 'run' ? colours[job.outcome] : colours[phase];
    const y = line.top + row * (line.height + 2);
    const thin = phase === 'run' || phase === 'launch' ? 0 : line.height * 0.25;
    const wide = Math.max(x(to) - x(from), 1);
    const [across, down] = [wide > 4 && phase === 'run' ? wide - 0.75 : wide, line.height - 2 * thin];
    if (phase === 'run' && job.allowed) drawHollow(pen, x(from), y, across, down); else pen.fillRect(x(from), y + thin, across, down);
    if (job === current.job) {
      pen.strokeStyle = colour('fg'); pen.lineWidth = 1.5;
      pen.strokeRect(x(from) - 0.5, y - 0.5, wide + 1, line.height + 1);
      pen.lineWidth = 1; pen.strokeStyle = colour('line');
    }
  }
  pen.globalAlpha = 1;
  if (line.drag && line.drag.to !== undefined) {
    pen.fillStyle = colour('accent'); pen.globalAlpha = 0.2;
    pen.fillRect(Math.min(line.drag.from, line.drag.to), 0, Math.abs(line.drag.to - line.drag.from), height);
    pen.globalAlpha = 1;
  }
  pen.restore();
}

// A failure that is allowed, as it looks in the matrix: an outline.
function drawHollow(pen, x, y, wide, high) {
  const alpha = pen.globalAlpha;
  pen.globalAlpha = alpha * 0.3;
  pen.fillRect(x, y, wide, high);
  pen.globalAlpha = alpha;
  const rim = Math.min(1.5, wide / 2);
  for (const [dx, dy, w, h] of [[0, 0, wide, rim], [0, high - rim, wide, rim], [0, 0, rim, high], [wide - rim, 0, rim, high]]) pen.fillRect(x + dx, y + dy, w, h);
}

// As much of a text as there is room for.
function fitted(pen, text, room) {
  let shown = text.length > 80 ? middle(text, 80) : text;
  for (let wide = pen.measureText(shown).width; wide > room && shown.length > 3; wide = pen.measureText(shown).width) {
    shown = middle(text, Math.max(3, Math.min(shown.length - 1, Math.floor(shown.length * room / wide))));
  }
  return shown;
}

function place(event) {
  const area = $('canvas').getBoundingClientRect();
  return [event.clientX - area.left, event.clientY - area.top];
}

function barAt(x, y) {
  const row = Math.floor((y - line.top) / (line.height + 2));
  const slack = 2 / line.scale;
  const ms = line.from + (x - line.left) / line.scale;
  let near = null;
  for (const bar of line.bars) {
    if (bar[0] !== row || ms < bar[2] - slack || ms > bar[3] + slack) continue;
    if (ms >= bar[2] && ms <= bar[3]) return bar;
    near = bar;
  }
  return near;
}

function zoom(from, to) {
  const end = endOfAll();
  const span = Math.min(Math.max(to - from, end / 5000), end);
  line.from = Math.max(0, Math.min(from, end - span));
  line.to = line.from + span;
  drawTimeline();
}

function hover(event) {
  const [x, y] = place(event);
  if (line.drag) {
    line.drag.to = x;
    drawTimeline();
    return;
  }
  const bar = barAt(x, y);
  const tip = $('tip');
  tip.hidden = !bar;
  $('canvas').style.cursor = bar ? 'pointer' : 'crosshair';
  if (!bar) return;
  const job = bar[4];
  const rows = phasesOf(job).map(([phase, from, to]) => `${phase} ${duration(to - from)}`);
  tip.textContent = plain(`${job.id}: ${job.verdict}`) + `\n${rows.join(', ')}`;
  const box = $('canvas-box');
  tip.style.left = `${Math.max(4, Math.min(x + 14, box.clientWidth - tip.offsetWidth - 4))}px`;
  tip.style.top = `${y + 18 + tip.offsetHeight > box.scrollTop + box.clientHeight ? y - tip.offsetHeight - 8 : y + 18}px`;
}

function release(event) {
  const drag = line.drag;
  line.drag = null;
  if (!drag) return;
  const [x, y] = place(event);
  if (Math.abs(x - drag.from) > 6) {
    const ms = (at) => line.from + (at - line.left) / line.scale;
    zoom(ms(Math.min(x, drag.from)), ms(Math.max(x, drag.from)));
    return;
  }
  const bar = barAt(x, y);
  if (bar) open(bar[4]); else drawTimeline();
}

function setMode(mode) {
  line.mode = mode;
  $('by-slot').setAttribute('aria-pressed', mode === 'slot');
  $('by-job').setAttribute('aria-pressed', mode === 'job');
  layOut();
  drawTimeline();
}

function showTimeline() {
  line.to = endOfAll();
  layOut();
  if (!line.bars.length) { $('times').hidden = true; return; }
  const canvas = $('canvas');
  canvas.addEventListener('pointermove', hover);
  canvas.addEventListener('pointerleave', () => { $('tip').hidden = true; });
  canvas.addEventListener('pointerdown', (event) => { if (event.button === 0) { line.drag = { from: place(event)[0] }; $('tip').hidden = true; } });
  addEventListener('pointerup', release);
  canvas.addEventListener('dblclick', () => zoom(0, endOfAll()));
  const middle = () => (line.from + line.to) / 2;
  const quarter = () => (line.to - line.from) / 4;
  $('zoom-in').addEventListener('click', () => zoom(middle() - quarter(), middle() + quarter()));
  $('zoom-out').addEventListener('click', () => zoom(middle() - 4 * quarter(), middle() + 4 * quarter()));
  $('zoom-all').addEventListener('click', () => zoom(0, endOfAll()));
  $('by-slot').addEventListener('click', () => setMode('slot'));
  $('by-job').addEventListener('click', () => setMode('job'));
  const keys = ['wait', 'prepare', 'queue', 'launch'].map((phase) => {
    const key = el('span', { class: 'key' }, phase);
    key.style.setProperty('--c', `var(--${phase})`);
    return key;
  });
  const absent = jobs.length - timed.length;
  $('phases').replaceChildren(...keys, el('span', { class: 'key o-ok' }, 'run, by outcome'), absent ? el('span', {}, `without ${plural(absent, 'job')} from earlier runs`) : '');
  new ResizeObserver(() => drawTimeline()).observe($('canvas-box'));
}

// The matrix: a grid per key whose jobs have axes, a strip where there is one axis or none.

const MANY = 160; // cells of a strip from which on they are squares without words
const WIDE = 60; // columns of a grid from which on all have the same width
const MOST_WORDS = 28; // characters of a value that are shown
const cells = new Map(); // job → its element

function cell(job, words) {
  const settings = { href: hrefOf(job), title: titleOf(job), 'aria-label': titleOf(job) };
  const made = words === null
    ? el('a', { ...settings, class: `sym cell ${classOf(job)}` }, SYMBOLS[job.outcome] || '?')
    : el('a', { ...settings, class: `pill ${classOf(job)}` }, symbol(job), name(middle(words, MOST_WORDS)));
  cells.set(job, made);
  return made;
}

// A number or a version: 3, 3.12, v1.20.1-rc2
const NUMBERED = /^v?\d+(\.\d+)*(-?[a-z]+\d*)?$/i;
const byNumber = new Intl.Collator('en', { numeric: true }).compare;

// The axes' values, each with its rank: as they came, which is the job file's order where no cell is missing. In a matrix with
// gaps that is no order at all: numbers and versions are sorted.
function axesOf(group) {
  const axes = new Map();
  for (const job of group) {
    for (const [axis, value] of job.matrix) {
      if (!axes.has(axis)) axes.set(axis, new Map());
      const values = axes.get(axis);
      if (!values.has(value)) values.set(value, values.size);
    }
  }
  const whole = [...axes.values()].reduce((cellsOfAll, values) => cellsOfAll * values.size, 1);
  if (group.length === whole) return axes;
  for (const [axis, values] of axes) {
    const sorted = [...values.keys()].sort(byNumber);
    if (sorted.every((value) => NUMBERED.test(value))) axes.set(axis, new Map(sorted.map((value, rank) => [value, rank])));
  }
  return axes;
}

const valueOf = (job, axis) => { const found = job.matrix.find((pair) => pair[0] === axis); return found ? found[1] : ''; };

function strip(title, group, words) {
  const small = group.length > MANY;
  const made = el('div', { class: `strip${small ? ' small' : ''}` }, group.map((job) => cell(job, small ? null : words(job))));
  return el('div', { class: 'grid' }, el('h2', {}, title), made);
}

// Columns as tuples of values, in the order of the axes' values.
function columnsOf(group, axes, names) {
  const found = new Map();
  for (const job of group) {
    const tuple = names.map((axis) => valueOf(job, axis));
    found.set(JSON.stringify(tuple), tuple);
  }
  const rank = (axis, value) => { const at = axes.get(axis).get(value); return at === undefined ? Infinity : at; };
  return [...found.values()].sort((a, b) => {
    for (let at = 0; at < names.length; at += 1) {
      const [one, two] = [rank(names[at], a[at]), rank(names[at], b[at])];
      if (one !== two) return one - two;
    }
    return 0;
  });
}

function headRows(columns, names, rowAxis) {
  return names.map((axis, level) => {
    const last = level === names.length - 1;
    const row = el('tr', { class: last && columns.length > 8 && columns.some((column) => column[level].length > 4) ? 'tall' : '' });
    row.append(el('th', { class: 'axis', scope: 'col' }, name(last ? `${rowAxis} ╲ ${axis}` : axis)));
    for (let at = 0; at < columns.length;) {
      const same = (other) => columns[other].slice(0, level + 1).every((value, place) => value === columns[at][place]);
      let end = at + 1;
      while (end < columns.length && !last && same(end)) end += 1;
      const value = columns[at][level];
      row.append(el('th', { scope: last ? 'col' : 'colgroup', colspan: end - at, title: plain(`${axis}: ${value}`) }, name(middle(value, MOST_WORDS) || '–')));
      at = end;
    }
    return row;
  });
}

function grid(key, group) {
  const axes = axesOf(group);
  const [rowAxis, ...names] = axes.keys();
  const columns = columnsOf(group, axes, names);
  const at = new Map(columns.map((column, place) => [JSON.stringify(column), place]));
  const rows = new Map([...axes.get(rowAxis).keys(), ''].map((value) => [value, columns.map(() => [])]));
  for (const job of group) {
    rows.get(valueOf(job, rowAxis))[at.get(JSON.stringify(names.map((axis) => valueOf(job, axis))))].push(job);
  }
  const body = [...rows].filter(([, places]) => places.some((here) => here.length)).map(([value, places]) => el('tr', {},
    el('th', { scope: 'row', title: plain(`${rowAxis}: ${value}`) }, name(middle(value, MOST_WORDS) || '–')),
    places.map((here) => el('td', {}, here.length === 1 ? cell(here[0], null) : el('div', { class: 'cells' }, here.map((job) => cell(job, null)))))));
  const table = el('table', { class: columns.length > WIDE ? 'wide' : '' }, el('thead', {}, headRows(columns, names, rowAxis)), el('tbody', {}, body));
  // the browser need not look at all cells to find the widths of so many columns
  if (columns.length > WIDE) table.style.width = `${180 + columns.length * 29 + 6}px`;
  return el('div', { class: 'grid' }, el('h2', {}, name(key)), el('div', { class: 'scroll' }, table));
}

function showMatrix() {
  const groups = new Map();
  for (const job of jobs) {
    if (!groups.has(job.key)) groups.set(job.key, []);
    groups.get(job.key).push(job);
  }
  const single = [];
  const made = [];
  for (const [key, group] of groups) {
    const axes = axesOf(group);
    if (axes.size >= 2) made.push(grid(key, group));
    else if (axes.size === 1) made.push(strip(name(key), group, (job) => (job.matrix[0] ? job.matrix[0][1] : job.id)));
    else if (group.length > 1) made.push(strip(name(key), group, (job) => job.id));
    else single.push(group[0]);
  }
  if (single.length) made.push(strip(made.length ? 'other jobs' : 'all jobs', single, (job) => job.id));
  $('matrix').replaceChildren(...made);
}

function markCells() {
  const all = current.shown.length === jobs.length;
  const shown = all ? null : new Set(current.shown);
  for (const [job, element] of cells) {
    element.classList.toggle('off', !all && !shown.has(job));
    element.classList.toggle('here', job === current.job);
  }
}

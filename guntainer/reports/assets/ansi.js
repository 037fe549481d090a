// Text with ANSI sequences as lines of runs: [text, classes, colour, background]. ECMA-48 and xterm's ctlseqs, of which SGR is
// obeyed, and a carriage return; everything else that begins with ESC is left out. No sequence reaches over a line's end.

const SEQUENCE = /\u001b\[([0-?]*)[ -/]*([@-~])|\u001b\][^\u0007\u001b\n]*(?:\u0007|\u001b\\)?|\u001b[PX^_][^\u001b\n]*(?:\u001b\\)?|\u001b[ -/]*[0-~]|\r*\n|\r/g;

function blank() {
  return { fg: null, bg: null, bold: false, dim: false, italic: false, under: false, inverse: false, strike: false };
}

function cube(number) {
  if (number < 16) return number;
  if (number > 231) { const grey = 8 + (number - 232) * 10; return `rgb(${grey},${grey},${grey})`; }
  const part = (value) => (value ? 55 + value * 40 : 0);
  const from = number - 16;
  return `rgb(${part(Math.floor(from / 36))},${part(Math.floor(from / 6) % 6)},${part(from % 6)})`;
}

// 38 and 48: what follows says which colour. Returns it, and how many numbers it took.
function extended(codes, at) {
  const byte = (value) => Math.min(255, Math.max(0, value | 0));
  if (codes[at] === 5) return [cube(byte(codes[at + 1])), 2];
  if (codes[at] === 2) return [`rgb(${byte(codes[at + 1])},${byte(codes[at + 2])},${byte(codes[at + 3])})`, 4];
  return [null, 1];
}

function obey(state, text) {
  const codes = text.split(/[;:]/).slice(0, 64).map((word) => parseInt(word, 10) || 0);
  for (let at = 0; at < codes.length; at += 1) {
    const code = codes[at];
    if (code === 0) Object.assign(state, blank());
    else if (code === 1) state.bold = true;
    else if (code === 2) state.dim = true;
    else if (code === 3) state.italic = true;
    else if (code === 4) state.under = true;
    else if (code === 7) state.inverse = true;
    else if (code === 9) state.strike = true;
    else if (code === 22) { state.bold = false; state.dim = false; } else if (code === 23) state.italic = false;
    else if (code === 24) state.under = false;
    else if (code === 27) state.inverse = false;
    else if (code === 29) state.strike = false;
    else if (code >= 30 && code <= 37) state.fg = code - 30;
    else if (code >= 90 && code <= 97) state.fg = code - 82;
    else if (code === 39) state.fg = null;
    else if (code >= 40 && code <= 47) state.bg = code - 40;
    else if (code >= 100 && code <= 107) state.bg = code - 92;
    else if (code === 49) state.bg = null;
    else if (code === 38 || code === 48) {
      const [colour, took] = extended(codes, at + 1);
      if (code === 38) state.fg = colour; else state.bg = colour;
      at += took;
    }
  }
}

// A state as what an element needs; null where that is nothing.
function look(state) {
  let { fg, bg } = state;
  if (state.inverse) [fg, bg] = [bg === null ? 0 : bg, fg === null ? 7 : fg];
  const classes = [];
  if (typeof fg === 'number') classes.push(`f${fg}`);
  if (typeof bg === 'number') classes.push(`b${bg}`);
  for (const [key, letter] of [['bold', 'b'], ['dim', 'd'], ['italic', 'i'], ['under', 'u'], ['strike', 's']]) {
    if (state[key]) classes.push(`s-${letter}`);
  }
  const colours = [typeof fg === 'string' ? fg : '', typeof bg === 'string' ? bg : ''];
  return classes.length || colours[0] || colours[1] ? [classes.join(' '), ...colours] : null;
}

function linesOf(text) {
  const lines = [];
  const state = blank();
  let style = null;
  let runs = [];
  let back = false; // a carriage return: what comes next writes over the line
  const add = (piece) => {
    if (!piece) return;
    if (back) { runs = []; back = false; }
    const last = runs[runs.length - 1];
    if (last && last[1] === style) last[0] += piece; else runs.push([piece, style]);
  };
  let at = 0;
  for (const found of text.matchAll(SEQUENCE)) {
    add(text.slice(at, found.index));
    at = found.index + found[0].length;
    if (found[0].endsWith('\n')) { lines.push(runs); runs = []; back = false; } else if (found[0] === '\r') back = true;
    else if (found[2] === 'm') { obey(state, found[1]); style = look(state); }
  }
  add(text.slice(at));
  if (runs.length) lines.push(runs);
  return lines;
}

const textOf = (runs) => (runs.length === 1 ? runs[0][0] : runs.map((run) => run[0]).join(''));

function styled(style, text) {
  if (!style) return document.createTextNode(text);
  const made = el('span', { class: style[0] });
  if (style[1]) made.style.color = style[1];
  if (style[2]) made.style.background = style[2];
  made.append(text);
  return made;
}

// A line as an element; every place where the needle stands is marked.
function lineElement(runs, needle) {
  const made = el('div', { class: 'ln' });
  const whole = needle ? textOf(runs).toLowerCase() : '';
  const marks = [];
  if (needle) for (let at = whole.indexOf(needle); at >= 0 && marks.length < 500; at = whole.indexOf(needle, at + needle.length)) marks.push(at);
  let from = 0;
  let mark = 0;
  for (const [text, style] of runs) {
    let at = 0;
    while (at < text.length) {
      while (mark < marks.length && marks[mark] + needle.length <= from + at) mark += 1;
      const begin = mark < marks.length ? Math.max(0, marks[mark] - from) : text.length;
      const inside = begin <= at;
      const end = inside ? Math.min(text.length, marks[mark] + needle.length - from) : Math.min(text.length, begin);
      const piece = text.slice(at, end);
      const holder = inside ? el('mark', {}) : made;
      if (UNSEEN.test(piece)) {
        UNSEEN.lastIndex = 0;
        const shell = style ? styled(style, '') : el('span', {});
        put(shell, piece);
        holder.append(shell);
      } else holder.append(styled(style, piece));
      if (inside) made.append(holder);
      at = end;
    }
    from += text.length;
  }
  return made;
}

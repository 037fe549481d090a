// Text with ANSI sequences as lines of runs: [text, [classes, colour, background]]. ECMA-48 and xterm's ctlseqs, of which SGR is
// obeyed, and carriage return and backspace; everything else that begins with ESC is left out. No sequence reaches over a line's end.

const SEQUENCE = /\u001b\[([0-?]*)([ -/]*)([@-~])|\u001b\][^\u0007\u001b\n]*(?:\u0007|\u001b\\)?|\u001b[PX^_][^\u001b\n]*(?:\u001b\\)?|\u001b[ -/]*[0-~]|\r+\n?|\n|\u0008+/g;

const LEAST_LIGHT = 0.14; // relative luminance, as WCAG has it: a contrast of 3

function blank() {
  return { fg: null, bg: null, bold: false, dim: false, italic: false, under: false, inverse: false, strike: false };
}

// A colour is a number of the first 16, or [red, green, blue].
function cube(number) {
  if (number < 16) return number;
  if (number > 231) return Array(3).fill(8 + (number - 232) * 10);
  const part = (value) => (value ? 55 + value * 40 : 0);
  const from = number - 16;
  return [part(Math.floor(from / 36)), part(Math.floor(from / 6) % 6), part(from % 6)];
}

// 38, 48 and 58 (of the underline): what follows says which colour. Returns it, and how many numbers it took.
function extended(codes, at) {
  const byte = (value) => Math.min(255, Math.max(0, value | 0));
  if (codes[at] === 5) return [cube(byte(codes[at + 1])), 2];
  if (codes[at] === 2) return [[1, 2, 3].map((next) => byte(codes[at + next])), 4];
  return [null, 1];
}

// A parameter with parts of its own, as ISO 8613-6 has them: 4:3 a curly underline, 38:5:N and 38:2:SPACE:R:G:B colours, where
// many write no colour space.
function obeyParts(state, [code, kind, ...rest]) {
  if (code === 4) state.under = kind !== 0;
  else if (code === 38 || code === 48) {
    const [colour] = extended([kind, ...(kind === 2 && rest.length > 3 ? rest.slice(1) : rest)], 0);
    if (code === 38) state.fg = colour; else state.bg = colour;
  }
}

function obey(state, text) {
  const number = (word) => parseInt(word, 10) || 0;
  const words = text.split(';').slice(0, 64);
  const codes = words.map(number);
  for (let at = 0; at < codes.length; at += 1) {
    const code = codes[at];
    if (words[at].includes(':')) obeyParts(state, words[at].split(':').slice(0, 8).map(number));
    else if (code === 0) Object.assign(state, blank());
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
    else if (code === 38 || code === 48 || code === 58) {
      const [colour, took] = extended(codes, at + 1);
      if (code === 38) state.fg = colour; else if (code === 48) state.bg = colour;
      at += took;
    }
  }
}

// Text on the log's own ground, which is dark: as light as it must be for that.
function lifted(colour) {
  const light = ([red, green, blue]) => 0.2126 * (red / 255) ** 2.2 + 0.7152 * (green / 255) ** 2.2 + 0.0722 * (blue / 255) ** 2.2;
  let shown = colour;
  for (let white = 0; light(shown) < LEAST_LIGHT; white += 1 / 16) shown = colour.map((value) => Math.round(value + (255 - value) * white));
  return shown;
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
  const colours = [bg === null && Array.isArray(fg) ? lifted(fg) : fg, bg].map((one) => (Array.isArray(one) ? `rgb(${one})` : ''));
  return classes.length || colours[0] || colours[1] ? [classes.join(' '), ...colours] : null;
}

// Take so many characters from the end of a line.
function takeBack(runs, count) {
  while (count > 0 && runs.length) {
    const last = runs[runs.length - 1];
    const left = last[0].length - count;
    count = -left;
    if (left > 0) last[0] = last[0].slice(0, left); else runs.pop();
  }
}

// Neighbours that look the same, as one.
function joined(runs) {
  const made = [];
  for (const run of runs) {
    const last = made[made.length - 1];
    if (last && last[1] === run[1]) last[0] += run[0]; else made.push(run);
  }
  return made;
}

function linesOf(text) {
  const lines = [];
  const state = blank();
  let style = null;
  let runs = [];
  let back = 0; // characters over which what comes next is written; all after a carriage return
  const add = (piece) => {
    if (!piece) return;
    if (back === Infinity) runs = []; else takeBack(runs, back);
    back = 0;
    runs.push([piece, style]);
  };
  let at = 0;
  for (const found of text.matchAll(SEQUENCE)) {
    add(text.slice(at, found.index));
    at = found.index + found[0].length;
    if (found[0].endsWith('\n')) { lines.push(joined(runs)); runs = []; back = 0; } else if (found[0][0] === '\r') back = Infinity;
    else if (found[0][0] === '\b') back += found[0].length;
    else if (found[3] === 'm' && !found[2] && !/[<-?]/.test(found[1])) { obey(state, found[1]); style = look(state); }
  }
  add(text.slice(at));
  if (runs.length) lines.push(joined(runs));
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
      if (piece.search(UNSEEN) >= 0) {
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

// Logs: blocks are unpacked when somebody looks, and few of them are kept.

const KEPT_BLOCKS = 6;
const CHUNK = 200; // lines that are put into the page together
const LINE_HEIGHT = 18;
const blocks = new Map();

async function unpacked(number) {
  const holder = $(`block-${number}`);
  if (!holder) throw new Error('this log is not in the page');
  const text = atob(holder.textContent);
  const packed = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at += 1) packed[at] = text.charCodeAt(at);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream('deflate'));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function block(number) {
  let found = blocks.get(number);
  blocks.delete(number);
  if (!found) found = unpacked(number);
  blocks.set(number, found);
  if (blocks.size > KEPT_BLOCKS) blocks.delete(blocks.keys().next().value);
  return found;
}

const decoder = new TextDecoder('utf-8');

// {stream, attempt, size, head, tail, left, path} of one of a job's logs.
async function logOf(place) {
  const [stream, attempt, size, number, offset, head, tail, path] = place;
  const data = await block(number);
  return {
    stream, attempt, size, path,
    head: decoder.decode(data.subarray(offset, offset + head)),
    tail: decoder.decode(data.subarray(offset + head, offset + head + tail)),
    left: size - head - tail,
  };
}

const linkTo = (path) => facts.links + path.split('/').map(encodeURIComponent).join('/');

// A log on the screen: chunks of lines that are filled when they come near, and a search in it.
class LogView {
  constructor() {
    this.box = el('div', { class: 'log', tabindex: '0', role: 'region', 'aria-label': 'log' });
    this.chunks = [];
    this.needle = '';
    this.matches = [];
    this.now = -1;
    this.watch = new IntersectionObserver((entries) => {
      for (const entry of entries) if (entry.isIntersecting) this.fill(entry.target.chunk);
    }, { root: this.box, rootMargin: '600px' });
  }

  show(log) {
    this.watch.disconnect();
    this.box.replaceChildren();
    this.chunks = [];
    this.add(linesOf(log.head), 1);
    if (log.left > 0) {
      const cut = el('div', { class: 'cut' }, `… ${bytes(log.left)} of ${bytes(log.size)} are left out …`);
      if (facts.links !== undefined && facts.links !== null && log.path) cut.append(' ', el('a', { href: linkTo(log.path), class: 'f12' }, 'the whole log'));
      this.box.append(cut);
    }
    if (log.tail) this.add(linesOf(log.tail), log.head || log.left > 0 ? 0 : 1);
    this.find(this.needle);
  }

  add(lines, number) {
    for (let at = 0; at < lines.length; at += CHUNK) {
      const chunk = { lines: lines.slice(at, at + CHUNK), first: number ? number + at : 0, holder: el('div', {}), full: false };
      chunk.holder.style.minHeight = `${chunk.lines.length * LINE_HEIGHT}px`;
      chunk.holder.chunk = chunk;
      this.chunks.push(chunk);
      this.box.append(chunk.holder);
      this.watch.observe(chunk.holder);
    }
    if (this.chunks.length) this.fill(this.chunks[0]);
  }

  toTop() { this.box.scrollTop = 0; }

  toEnd() {
    this.chunks.slice(-2).forEach((chunk) => this.fill(chunk));
    this.box.scrollTop = this.box.scrollHeight;
  }

  fill(chunk, again) {
    if (chunk.full && !again) return;
    chunk.full = true;
    const made = chunk.lines.map((runs, place) => {
      const line = lineElement(runs, this.needle);
      if (chunk.first) line.dataset.n = chunk.first + place;
      return line;
    });
    chunk.holder.replaceChildren(...made);
    chunk.holder.style.minHeight = '';
  }

  find(text) {
    const before = this.needle;
    this.needle = text.toLowerCase();
    this.matches = [];
    this.now = -1;
    if (this.needle) {
      this.chunks.forEach((chunk) => chunk.lines.forEach((runs, place) => {
        if (textOf(runs).toLowerCase().includes(this.needle)) this.matches.push([chunk, place]);
      }));
    }
    if (this.needle || before) for (const chunk of this.chunks) if (chunk.full) this.fill(chunk, true);
    if (this.matches.length) this.step(1);
  }

  step(by) {
    if (!this.matches.length) return;
    for (const mark of this.box.querySelectorAll('mark.now')) mark.classList.remove('now');
    this.now = (this.now + by + this.matches.length) % this.matches.length;
    const [chunk, place] = this.matches[this.now];
    this.fill(chunk);
    const line = chunk.holder.children[place];
    for (const mark of line.querySelectorAll('mark')) mark.classList.add('now');
    this.box.scrollTop += line.getBoundingClientRect().top - this.box.getBoundingClientRect().top - this.box.clientHeight / 3;
  }
}

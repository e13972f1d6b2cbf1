"use strict";
// Draws timelines and memory maps from the element #data. Times there are parts of a run that has 1e9 of them.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const TICKS = 1e9, S = data.strings;
  const LIMITS = ["compute", "memory", "launch", "link"];
  const CLASSES = ["contraction", "normalization", "reduction", "data movement", "elementwise", "other", "copy"];
  const root = document.documentElement;
  root.classList.add("js");

  // Numbers with units, as in the tables.
  const scaled = (v, units) => {
    if (!isFinite(v)) return "?";
    const last = units[units.length - 1];
    if (v === 0) return "0 " + last[1];
    const [scale, unit] = units.find(([s]) => Math.abs(v) >= s * 0.9995) || last;
    const n = v / scale, a = Math.abs(n);
    return (unit === "B" || a >= 99.95 ? n.toFixed(0) : a >= 9.995 ? n.toFixed(1) : n.toFixed(2)) + " " + unit;
  };
  const seconds = (v) => scaled(v, [[1, "s"], [1e-3, "ms"], [1e-6, "µs"], [1e-9, "ns"]]);
  const bytes = (v) => scaled(v, [[1e12, "TB"], [1e9, "GB"], [1e6, "MB"], [1e3, "kB"], [1, "B"]]);
  const flops = (v) => scaled(v, [[1e15, "PFLOP"], [1e12, "TFLOP"], [1e9, "GFLOP"], [1e6, "MFLOP"], [1e3, "kFLOP"], [1, "FLOP"]]);
  const clamp = (v, low, high) => Math.min(Math.max(v, low), high);

  let colours = {};
  const readColours = () => {
    const style = getComputedStyle(root), get = (n) => style.getPropertyValue("--" + n).trim();
    colours = {
      text: get("text"), dim: get("dim"), line: get("line"), soft: get("soft"), surface: get("surface"), accent: get("accent"), bad: get("bad"),
      limits: LIMITS.map((l) => get("l-" + l)), classes: CLASSES.map((_, i) => get("c-" + i)),
      devices: [0, 1, 2, 3, 4, 5, 6, 7].map((i) => get("d-" + i)), weights: get("m-weights"), state: get("m-state"),
      mono: get("mono"), sans: get("sans"),
    };
  };
  readColours();
  const charts = [];
  const redraw = () => { readColours(); charts.forEach((c) => c.resize()); };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);

  // Dark text on light colours and the other way round.
  const inks = new Map();
  const ink = (colour) => {
    if (!inks.has(colour)) {
      const n = parseInt(colour.slice(1), 16);
      const light = 0.299 * (n >> 16 & 255) + 0.587 * (n >> 8 & 255) + 0.114 * (n & 255);
      inks.set(colour, light > 140 ? "#14181d" : "#ffffff");
    }
    return inks.get(colour);
  };

  // A text shortened to so many pixels of a font of fixed width.
  const fitted = (text, width, char) => {
    const room = Math.floor(width / char);
    return text.length <= room ? text : room < 3 ? "" : text.slice(0, room - 1) + "…";
  };

  const node = (tag, text) => { const e = document.createElement(tag); if (text !== undefined) e.textContent = text; return e; };
  const described = (title, rows) => {
    const out = document.createDocumentFragment();
    out.append(node("b", title));
    const list = node("dl");
    for (const [name, value] of rows) if (value) { const row = node("div"); row.append(node("dt", name), node("dd", value)); list.append(row); }
    out.append(list);
    return out;
  };
  const tip = document.getElementById("tip");
  const showTip = (event, content) => {
    if (!content) { tip.hidden = true; return; }
    tip.replaceChildren(content);
    tip.hidden = false;
    const box = tip.getBoundingClientRect(), x = event.clientX + 14, y = event.clientY + 16;
    tip.style.left = clamp(x + box.width > innerWidth - 8 ? event.clientX - box.width - 10 : x, 8, Math.max(8, innerWidth - box.width - 8)) + "px";
    tip.style.top = clamp(y + box.height > innerHeight - 8 ? event.clientY - box.height - 12 : y, 8, Math.max(8, innerHeight - box.height - 8)) + "px";
  };
  addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });

  // A moment on an axis with this step, which goes up to `most`: as many digits as tell two of them apart.
  const moment = (t, by, most) => {
    const [scale, unit] = [[1, "s"], [1e-3, "ms"], [1e-6, "µs"]].find(([s]) => most >= s) || [1e-9, "ns"];
    return (t / scale).toFixed(clamp(Math.ceil(-Math.log10(by / scale) - 1e-9), 0, 9)) + " " + unit;
  };
  // Round steps for an axis.
  const step = (span, count) => {
    const raw = span / Math.max(count, 1), power = 10 ** Math.floor(Math.log10(raw));
    return power * ([1, 2, 5].find((m) => raw <= m * power) || 10);
  };

  // A canvas with a window of time that moves and zooms.
  class Chart {
    constructor(canvas, total) {
      this.canvas = canvas; this.g = canvas.getContext("2d"); this.total = total;
      this.from = 0; this.to = TICKS; this.left = 0; this.width = 0; this.height = 0;
      this.pointers = new Map(); this.moved = 0; this.wanted = false;
      // The height follows from the width, so only that matters.
      const fit = () => { if (canvas.parentElement.clientWidth !== this.width) this.resize(); };
      new ResizeObserver(() => requestAnimationFrame(fit)).observe(canvas.parentElement);
      canvas.addEventListener("wheel", (e) => this.wheel(e), { passive: false });
      canvas.addEventListener("pointerdown", (e) => this.down(e));
      canvas.addEventListener("pointermove", (e) => this.move(e));
      for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (e) => this.up(e, end === "pointerup"));
      canvas.addEventListener("pointerleave", () => { tip.hidden = true; this.hover = -1; this.ask(); });
      canvas.addEventListener("dblclick", (e) => this.zoom(0.4, this.time(e.offsetX)));
      canvas.addEventListener("keydown", (e) => { if (!e.ctrlKey && !e.metaKey && !e.altKey && this.key(e.key)) e.preventDefault(); });
      this.hover = -1; this.chosen = -1;
      charts.push(this);
    }
    resize() {
      const width = this.canvas.parentElement.clientWidth;
      if (!width) return;
      this.layout(width);
      const scale = devicePixelRatio || 1;
      this.canvas.style.height = this.height + "px";
      this.canvas.width = Math.round(width * scale); this.canvas.height = Math.round(this.height * scale);
      this.g.setTransform(scale, 0, 0, scale, 0, 0);
      this.width = width;
      this.draw();
    }
    ask() {
      if (this.wanted) return;
      this.wanted = true;
      requestAnimationFrame(() => { this.wanted = false; if (this.width) this.draw(); });
    }
    x(t) { return this.left + (t - this.from) / (this.to - this.from) * (this.width - this.left); }
    time(x) { return this.from + (x - this.left) / (this.width - this.left) * (this.to - this.from); }
    show(from, to) {
      const span = clamp(to - from, 200, TICKS);
      this.from = clamp(from, 0, TICKS - span); this.to = this.from + span;
      this.ask();
    }
    zoom(by, at = (this.from + this.to) / 2) { this.show(at - (at - this.from) * by, at + (this.to - at) * by); }
    pan(by) { const d = (this.to - this.from) * by; this.show(this.from + d, this.to + d); }
    wheel(e) {
      if (e.ctrlKey || e.metaKey) { e.preventDefault(); this.zoom(Math.exp(clamp(e.deltaY, -200, 200) * 0.004), this.time(e.offsetX)); }
      else if (Math.abs(e.deltaX) > Math.abs(e.deltaY)) { e.preventDefault(); this.pan(e.deltaX / this.width); }
      else if (e.shiftKey) { e.preventDefault(); this.pan(e.deltaY / this.width); }
    }
    down(e) { if (!this.jump(e.offsetX, e.offsetY)) this.grab(e); }
    jump() { return false; }
    grab(e) { this.pointers.set(e.pointerId, e.offsetX); this.moved = 0; this.canvas.setPointerCapture(e.pointerId); }
    move(e) {
      const before = this.pointers.get(e.pointerId);
      if (before === undefined) { this.point(e); return; }
      const others = [...this.pointers].filter(([id]) => id !== e.pointerId);
      this.moved += Math.abs(e.offsetX - before);
      if (others.length) {
        const other = others[0][1], old = Math.abs(before - other), now = Math.abs(e.offsetX - other);
        if (old > 4 && now > 4) this.zoom(old / now, this.time((e.offsetX + other) / 2));
      } else if (this.moved > 3) { tip.hidden = true; this.pan((before - e.offsetX) / Math.max(this.width - this.left, 1)); }
      this.pointers.set(e.pointerId, e.offsetX);
    }
    up(e, done) {
      const held = this.pointers.delete(e.pointerId);
      if (done && held && this.moved <= 3) { this.choose(this.hit(e.offsetX, e.offsetY)); if (e.pointerType !== "mouse") this.point(e); }
    }
    point(e) {
      const hit = this.hit(e.offsetX, e.offsetY);
      if (hit !== this.hover) { this.hover = hit; this.ask(); }
      showTip(e, hit === -1 ? null : this.tell(hit));
    }
    key(key) {
      const k = key.toLowerCase();
      if (k === "w" || k === "+") this.zoom(0.7);
      else if (k === "s" || k === "-") this.zoom(1 / 0.7);
      else if (k === "a") this.pan(-0.2);
      else if (k === "d") this.pan(0.2);
      else if (k === "0" || k === "home") this.show(0, TICKS);
      else if (k === "escape") this.choose(-1);
      else return this.next(k);
      return true;
    }
    next() { return false; }
    choose() {}
    // The axis of time, and lines down from it.
    axis(y, bottom) {
      const g = this.g, unit = this.total / TICKS, span = (this.to - this.from) * unit;
      const by = step(span, (this.width - this.left) / 66);
      g.font = "11px " + colours.sans; g.textAlign = "center"; g.textBaseline = "middle";
      for (let t = Math.ceil(this.from * unit / by) * by, n = 0; by > 0 && t <= this.to * unit * (1 + 1e-12) && n < 200; t += by, n++) {
        const x = this.x(t / unit);
        g.strokeStyle = colours.line; g.lineWidth = 1;
        g.beginPath(); g.moveTo(Math.round(x) + 0.5, y + 18); g.lineTo(Math.round(x) + 0.5, bottom); g.stroke();
        const label = moment(Math.abs(t) < by / 2 ? 0 : t, by, this.to * unit), half = g.measureText(label).width / 2 + 2;
        if (x - half >= this.left && x + half <= this.width) { g.fillStyle = colours.dim; g.fillText(label, x, y + 9); }
      }
    }
    clear() { this.g.clearRect(0, 0, this.width, this.height); }
  }

  const ROW = 24, HEAD = 24, OVER = 18, RULER = 20, FIELDS = 13;

  // What every stream does.
  class Timeline extends Chart {
    constructor(box, entry) {
      super(box.querySelector("canvas"), entry.seconds);
      this.box = box; this.entry = entry; this.by = "limit"; this.found = null; this.path = null;
      const raw = entry.tasks;
      this.tasks = [];
      for (let i = 0; i + FIELDS <= raw.length; i += FIELDS) {
        const [stream, start, length, name, scope, limit, kind, work, moved, alone, ops, route, share] = raw.slice(i, i + FIELDS);
        this.tasks.push({ stream, start, end: start + length, name: S[name], scope: S[scope], limit, kind, work, moved, alone, ops, share, route: route < 0 ? "" : S[route] });
      }
      this.rows = []; this.rowOf = new Map();
      let device = -1;
      for (const [d, s, kind] of entry.streams) {
        if (d !== device) { this.rows.push({ device: d }); device = d; }
        this.rowOf.set(s, this.rows.length);
        this.rows.push({ device: d, stream: s, kind: S[kind], tasks: [], waits: [] });
      }
      this.tasks.forEach((t, i) => { const row = this.rows[this.rowOf.get(t.stream)]; if (row) row.tasks.push(i); });
      this.waits = [];
      for (let i = 0; i + 5 <= entry.waits.length; i += 5) {
        const [stream, start, length, task, then] = entry.waits.slice(i, i + 5);
        const wait = { stream, start, end: start + length, task, then };
        const row = this.rows[this.rowOf.get(stream)];
        this.waits.push(wait);
        if (row) row.waits.push(wait);
      }
      this.onPath = new Set(entry.path);
      this.tools();
      this.choose(-1);
    }
    tools() {
      const by = (what) => this.box.querySelector(`[data-do=${what}]`);
      by("in").onclick = () => this.zoom(0.5);
      by("out").onclick = () => this.zoom(2);
      by("fit").onclick = () => this.show(0, TICKS);
      by("path").onclick = (e) => {
        this.path = this.path ? null : this.onPath;
        e.currentTarget.setAttribute("aria-pressed", String(!!this.path));
        this.ask();
      };
      by("by").onchange = (e) => {
        this.by = e.target.value;
        this.box.querySelector(".by-limit").hidden = this.by !== "limit";
        this.box.querySelector(".by-class").hidden = this.by !== "class";
        this.ask();
      };
      by("find").oninput = (e) => {
        const text = e.target.value.trim().toLowerCase();
        const matches = (t) => t.name.toLowerCase().includes(text) || t.scope.toLowerCase().includes(text);
        this.found = text ? new Set(this.tasks.flatMap((t, i) => matches(t) ? [i] : [])) : null;
        this.box.querySelector(".hits").textContent = this.found ? this.found.size + " found" : "";
        this.ask();
      };
      by("find").onkeydown = (e) => {
        if (e.key !== "Enter" || !this.found || !this.found.size) return;
        const all = [...this.found];
        this.choose(all[(all.indexOf(this.chosen) + 1) % all.length], true);
      };
    }
    layout(width) {
      this.left = width < 600 ? 78 : 118;
      let y = OVER + RULER;
      for (const row of this.rows) { row.y = y; row.h = row.stream === undefined ? HEAD : ROW; y += row.h; }
      this.height = y + 6;
    }
    // A press in the strip of the whole run moves the window there.
    jump(x, y) {
      if (y >= OVER || x < this.left) return false;
      const middle = (x - this.left) / (this.width - this.left) * TICKS, half = (this.to - this.from) / 2;
      this.show(middle - half, middle + half);
      return true;
    }
    colour(t) { return this.by === "limit" ? colours.limits[t.limit] : colours.classes[t.kind]; }
    draw() {
      const g = this.g;
      this.clear();
      this.axis(OVER, this.height);
      this.overview();
      for (const row of this.rows) this.row(row);
      this.arrows();
      g.fillStyle = colours.line;
      g.fillRect(this.left - 1, OVER, 1, this.height);
    }
    overview() {
      const g = this.g, wide = this.width - this.left, at = (t) => this.left + t / TICKS * wide;
      g.fillStyle = colours.soft; g.fillRect(this.left, 0, wide, OVER);
      const streams = this.rows.filter((r) => r.stream !== undefined), h = (OVER - 4) / Math.max(streams.length, 1);
      streams.forEach((row, n) => {
        g.fillStyle = colours.devices[row.device % 8];
        let last = -1;
        for (const i of row.tasks) {
          const t = this.tasks[i], x = Math.max(at(t.start), last), w = at(t.end) - x;
          if (w > 0.05) { g.fillRect(x, 2 + n * h, Math.max(w, 0.5), Math.max(h - 0.4, 0.6)); last = x + w; }
        }
      });
      if (this.to - this.from < TICKS) {
        g.fillStyle = colours.surface; g.globalAlpha = 0.65;
        g.fillRect(this.left, 0, at(this.from) - this.left, OVER); g.fillRect(at(this.to), 0, this.width - at(this.to), OVER);
        g.globalAlpha = 1; g.strokeStyle = colours.accent; g.lineWidth = 1.5;
        g.strokeRect(at(this.from), 1, Math.max(at(this.to) - at(this.from), 2), OVER - 2);
      }
      g.font = "11px " + colours.sans; g.textAlign = "left"; g.textBaseline = "middle"; g.fillStyle = colours.dim;
      g.fillText("whole run", 6, OVER / 2);
    }
    row(row) {
      const g = this.g, middle = row.y + row.h / 2;
      g.textAlign = "left"; g.textBaseline = "middle";
      if (row.stream === undefined) {
        g.fillStyle = colours.soft; g.fillRect(0, row.y, this.width, row.h - 2);
        g.fillStyle = colours.devices[row.device % 8]; g.fillRect(6, middle - 5, 9, 9);
        g.font = "600 12px " + colours.sans; g.fillStyle = colours.text;
        g.fillText(data.devices[row.device] || "?", 21, middle);
        return;
      }
      g.font = "11px " + colours.sans; g.fillStyle = colours.dim;
      g.fillText(this.left < 100 ? row.stream + " " + row.kind.slice(0, 7) : "stream " + row.stream + " · " + row.kind, 6, middle);
      g.save(); g.beginPath(); g.rect(this.left, row.y, this.width - this.left, row.h); g.clip();
      g.strokeStyle = colours.dim; g.lineWidth = 1; g.globalAlpha = 0.55;
      for (const w of row.waits) {
        const x = Math.max(this.x(w.start), this.left), end = Math.min(this.x(w.end), this.width);
        if (end - x < 3) continue;
        g.beginPath();
        for (let at = x - x % 6; at < end; at += 6) { g.moveTo(Math.max(at, x), middle + 2); g.lineTo(Math.min(at + 4, end), middle - 2); }
        g.stroke();
      }
      g.globalAlpha = 1;
      let drawn = -1;
      g.font = "10.5px " + colours.mono;
      for (let n = this.first(row.tasks); n < row.tasks.length; n++) {
        const i = row.tasks[n], t = this.tasks[i], x = this.x(t.start);
        if (x > this.width) break;
        const end = this.x(t.end);
        const dim = (this.found && !this.found.has(i)) || (this.path && !this.path.has(i));
        if (end - drawn < 0.7 && i !== this.chosen && (dim || !this.found)) continue;
        const colour = this.colour(t), w = Math.max(end - x, 0.8);
        g.globalAlpha = dim ? 0.16 : 1;
        g.fillStyle = colour;
        g.fillRect(x, row.y + 2, w > 3 ? w - 0.6 : w, ROW - 4);
        drawn = end;
        if (w > 30 && !dim) {
          const from = Math.max(x, this.left), label = fitted(t.name, Math.min(end, this.width) - from - 7, 6.35);
          if (label) { g.fillStyle = ink(colour); g.fillText(label, from + 4, middle + 0.5); }
        }
        if (i === this.chosen || i === this.hover) {
          g.globalAlpha = 1; g.strokeStyle = colours.text; g.lineWidth = i === this.chosen ? 2 : 1;
          g.strokeRect(x, row.y + 2, Math.max(w - 0.6, 1), ROW - 4);
        }
      }
      g.globalAlpha = 1;
      g.restore();
    }
    // The first task of a row that ends in the window or after it.
    first(list) {
      let low = 0, high = list.length;
      while (low < high) { const mid = (low + high) >> 1; if (this.tasks[list[mid]].end < this.from) low = mid + 1; else high = mid; }
      return low;
    }
    // From the end of what was waited for to the start of what waited: of the chosen task, or of all if there are few.
    arrows() {
      const g = this.g, near = this.waits.filter((w) => w.task >= 0 && w.then >= 0 && w.end >= this.from && w.start <= this.to);
      const own = near.filter((w) => w.task === this.chosen || w.then === this.chosen);
      const list = own.length ? own : near.length <= 60 ? near : [];
      g.save(); g.beginPath(); g.rect(this.left, OVER + RULER, this.width, this.height); g.clip();
      g.strokeStyle = g.fillStyle = colours.text; g.lineWidth = 1; g.globalAlpha = own.length ? 0.95 : 0.4;
      for (const w of list) {
        const a = this.tasks[w.task], b = this.tasks[w.then];
        const from = this.rows[this.rowOf.get(a.stream)], to = this.rows[this.rowOf.get(b.stream)];
        if (!from || !to || from === to) continue;
        const x1 = this.x(a.end), x2 = this.x(b.start), y1 = from.y + ROW / 2, y2 = to.y + ROW / 2, bend = Math.max(8, Math.abs(x2 - x1) / 2);
        g.beginPath(); g.moveTo(x1, y1); g.bezierCurveTo(x1 + bend, y1, x2 - bend, y2, x2, y2); g.stroke();
        g.beginPath(); g.moveTo(x2, y2); g.lineTo(x2 - 5, y2 - 3); g.lineTo(x2 - 5, y2 + 3); g.fill();
      }
      g.restore();
    }
    hit(x, y) {
      const row = this.rows.find((r) => r.stream !== undefined && y >= r.y && y < r.y + r.h);
      if (!row || x < this.left) return -1;
      let best = -1, near = 3;
      for (let n = this.first(row.tasks); n < row.tasks.length; n++) {
        const t = this.tasks[row.tasks[n]], start = this.x(t.start), end = this.x(t.end);
        if (start > x + 3) break;
        const off = x < start ? start - x : x > end ? x - end : 0;
        if (off < near || (off === 0 && near === 0)) { best = row.tasks[n]; near = off; }
      }
      return best;
    }
    facts(i, all) {
      const t = this.tasks[i], unit = this.total / TICKS, length = (t.end - t.start) * unit, alone = t.alone;
      const rows = [["scope", t.scope], ["starts", seconds(t.start * unit)], ["takes", seconds(length)]];
      if (alone > 0 && length > alone * 1.02) rows.push(["by itself", seconds(alone)]);
      if (t.route) rows.push(["goes", t.route]);
      rows.push(["bound by", LIMITS[t.limit]]);
      if (t.ops > 0) rows.push(["operations", String(t.ops)]);
      if (t.moved > 0) rows.push(["moves", bytes(t.moved) + (alone > 0 ? ", " + bytes(t.moved / alone) + "/s" : "")]);
      if (t.work > 0) rows.push(["work", flops(t.work) + (alone > 0 ? ", " + flops(t.work / alone) + "/s" : "")]);
      if (t.share > 0) rows.push(["fills", (t.share < 0.0995 ? (100 * t.share).toFixed(1) : (100 * t.share).toFixed(0)) + " % of the device"]);
      if (all) {
        if (this.onPath.has(i)) rows.push(["critical", "on the critical path"]);
        const waited = this.waits.filter((w) => w.then === i && w.task >= 0).sort((a, b) => b.end - a.end)[0];
        if (waited) rows.push(["waited", seconds((waited.end - waited.start) * unit) + " for " + this.tasks[waited.task].name]);
      }
      return rows;
    }
    tell(i) { return described(this.tasks[i].name, this.facts(i, false)); }
    choose(i, into = false) {
      this.chosen = i;
      const detail = this.box.querySelector(".detail");
      if (i < 0) detail.replaceChildren(node("span", "Click a command for its details.")), detail.firstChild.className = "dim";
      else {
        detail.replaceChildren(described(this.tasks[i].name, this.facts(i, true)));
        const t = this.tasks[i];
        if (into && (t.start < this.from || t.end > this.to)) {
          const span = this.to - this.from, middle = (t.start + t.end) / 2;
          this.show(middle - span / 2, middle + span / 2);
        }
        if (into) {
          const row = this.rows[this.rowOf.get(t.stream)], plot = this.canvas.parentElement;
          if (row && (row.y < plot.scrollTop || row.y + ROW > plot.scrollTop + plot.clientHeight)) plot.scrollTop = row.y - 60;
        }
      }
      this.ask();
    }
    next(key) {
      const shift = { arrowleft: -1, arrowright: 1 }[key];
      if (!shift) return false;
      const t = this.tasks[this.chosen];
      const list = t ? this.rows[this.rowOf.get(t.stream)].tasks : (this.rows.find((r) => r.tasks && r.tasks.length) || { tasks: [] }).tasks;
      const at = t ? list.indexOf(this.chosen) + shift : 0;
      if (list[at] !== undefined) this.choose(list[at], true);
      return true;
    }
  }

  // Where values lie, and when.
  class Memory extends Chart {
    constructor(box, entry, map) {
      super(box.querySelector("canvas"), entry.seconds);
      this.map = map; this.buffers = [];
      for (let i = 0; i + 6 <= map.buffers.length; i += 6) {
        const [offset, size, start, length, name, type] = map.buffers.slice(i, i + 6);
        this.buffers.push({ offset, size, start, end: start + length, name: S[name], type: S[type] });
      }
      this.top = Math.max(map.bytes, 1);
    }
    layout(width) { this.left = width < 600 ? 58 : 76; this.height = clamp(this.buffers.length * 4, 170, 340); this.bottom = this.height - 8; }
    y(offset) { return this.bottom - offset / this.top * (this.bottom - RULER - 6); }
    // Values of one kind of operation have one colour.
    colour(b) {
      let h = 7;
      for (let i = 0; i < b.name.length && b.name[i] !== " "; i++) h = (h * 31 + b.name.charCodeAt(i)) >>> 0;
      return colours.devices[h % 8];
    }
    draw() {
      const g = this.g;
      this.clear();
      this.axis(0, this.bottom);
      g.font = "11px " + colours.sans; g.textAlign = "right"; g.textBaseline = "middle";
      const by = step(this.top, 5);
      for (let at = 0, n = 0; at <= this.top && n < 12; at += by, n++) {
        const y = this.y(at);
        g.strokeStyle = colours.line; g.beginPath(); g.moveTo(this.left, Math.round(y) + 0.5); g.lineTo(this.width, Math.round(y) + 0.5); g.stroke();
        g.fillStyle = colours.dim; g.fillText(bytes(at), this.left - 6, clamp(y, RULER + 4, this.bottom - 2));
      }
      g.save(); g.beginPath(); g.rect(this.left, 0, this.width - this.left, this.height); g.clip();
      this.buffers.forEach((b, i) => {
        const x = this.x(b.start), w = Math.max(this.x(b.end) - x, 1), y = this.y(b.offset + b.size), h = Math.max(this.y(b.offset) - y, 1);
        if (x > this.width || x + w < this.left) return;
        const colour = this.colour(b);
        g.fillStyle = colour; g.globalAlpha = i === this.hover ? 1 : 0.78; g.fillRect(x, y, w, h);
        g.globalAlpha = 1;
        if (i === this.hover || (w > 3 && h > 3)) {
          g.strokeStyle = i === this.hover ? colours.text : colours.surface; g.lineWidth = i === this.hover ? 2 : 0.7; g.strokeRect(x, y, w, h);
        }
        const from = Math.max(x, this.left), room = Math.min(x + w, this.width) - from - 8;
        if (room > 34 && h > 13) {
          g.font = "10.5px " + colours.mono; g.textAlign = "left"; g.fillStyle = ink(colour);
          const label = fitted(b.name, room, 6.35);
          if (label) g.fillText(label, from + 4, y + h / 2);
        }
      });
      if (this.map.bound !== null && this.map.bound > 0) {
        const y = this.y(Math.min(this.map.bound, this.top));
        g.strokeStyle = colours.bad; g.lineWidth = 1.5; g.setLineDash([6, 4]);
        g.beginPath(); g.moveTo(this.left, y); g.lineTo(this.width, y); g.stroke(); g.setLineDash([]);
      }
      g.restore();
    }
    hit(x, y) {
      for (let i = this.buffers.length - 1; i >= 0; i--) {
        const b = this.buffers[i], from = this.x(b.start), to = Math.max(this.x(b.end), from + 2), low = this.y(b.offset), high = Math.min(this.y(b.offset + b.size), low - 2);
        if (x >= from && x <= to && y <= low && y >= high) return i;
      }
      return -1;
    }
    tell(i) {
      const b = this.buffers[i], unit = this.total / TICKS;
      return described(b.name, [["type", b.type], ["bytes", bytes(b.size)], ["at", "byte " + b.offset.toLocaleString("en")],
        ["lives", seconds(b.start * unit) + " to " + seconds(b.end * unit)]]);
    }
  }

  // Weights or state of a device: bytes from left to right.
  class Strip extends Chart {
    constructor(box, strip) {
      super(box.querySelector("canvas"), 1);
      this.strip = strip; this.buffers = [];
      for (let i = 0; i + 4 <= strip.buffers.length; i += 4) {
        const [offset, size, name, type] = strip.buffers.slice(i, i + 4);
        const part = TICKS / Math.max(strip.bytes, 1);
        this.buffers.push({ offset, size, start: offset * part, end: (offset + size) * part, name: S[name], type: S[type] });
      }
    }
    layout() { this.left = 0; this.height = 34; }
    draw() {
      const g = this.g;
      this.clear();
      g.textBaseline = "middle"; g.textAlign = "left"; g.font = "10.5px " + colours.mono;
      const base = this.strip.kind === "state" ? colours.state : colours.weights;
      this.buffers.forEach((b, i) => {
        const x = this.x(b.start), w = this.x(b.end) - x;
        if (x > this.width || x + w < 0) return;
        g.fillStyle = base; g.globalAlpha = w < 24 && i % 2 && i !== this.hover ? 0.6 : 1;
        g.fillRect(x, 0, w > 3 ? w - 1 : Math.max(w, 0.4), this.height);
        g.globalAlpha = 1;
        const from = Math.max(x, 0), room = Math.min(x + w, this.width) - from - 8;
        if (room > 40) { g.fillStyle = ink(base); const label = fitted(b.name, room, 6.35); if (label) g.fillText(label, from + 4, this.height / 2); }
        if (i === this.hover) { g.strokeStyle = colours.text; g.lineWidth = 2; g.strokeRect(x, 1, Math.max(w, 1), this.height - 2); }
      });
    }
    hit(x) {
      const t = this.time(x), slack = (this.to - this.from) / Math.max(this.width, 1);
      return this.buffers.findIndex((b) => t >= b.start - slack && t <= b.end + slack);
    }
    tell(i) {
      const b = this.buffers[i];
      return described(b.name, [["type", b.type], ["bytes", bytes(b.size)], ["at", "byte " + b.offset.toLocaleString("en")]]);
    }
  }

  for (const box of document.querySelectorAll(".tl")) new Timeline(box, data.entries[box.dataset.entry]);
  for (const box of document.querySelectorAll(".map")) {
    const entry = data.entries[box.dataset.entry], map = entry && entry.maps[box.dataset.map];
    if (map) new Memory(box, entry, map);
  }
  for (const box of document.querySelectorAll(".strip")) if (data.strips[box.dataset.strip]) new Strip(box, data.strips[box.dataset.strip]);

  const select = document.getElementById("entry");
  const pick = () => {
    const chosen = select ? select.value : "0";
    for (const part of document.querySelectorAll(".entry")) part.classList.toggle("off", part.dataset.entry !== chosen);
  };
  if (select) select.addEventListener("change", pick);
  pick();
})();

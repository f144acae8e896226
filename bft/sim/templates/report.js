"use strict";
// Draws the diagrams of the data block. A diagram is built when it first comes into view.
const COLOURS = {
  Request: "#6b7280", PrePrepare: "#0072b2", Prepare: "#56a5d8", Commit: "#009e73", Reply: "#a3a3a3",
  Checkpoint: "#8c6d31", CheckpointCertificate: "#8c6d31", ViewChange: "#d55e00", NewView: "#cc4aa0",
  Suspect: "#e0a100", Status: "#cbd2dc", Query: "#9aa6b8", QueryReply: "#b9c2d0", CommitCertificate: "#2c7a5b",
  Garbage: "#000000",
};
const OTHER = "#7b5fc7";
const VIEWS = ["#e8f0fb", "#fdeccf", "#e3f4e6", "#f6e4f3", "#e6e6fa", "#fbe3dc", "#dff3f3", "#f3f1d8"];
const LANE = 62, TOP = 56, BAND = 30;
const SVG = "http://www.w3.org/2000/svg";

const tip = document.body.appendChild(document.createElement("div"));
tip.id = "tip";

function node(name, attributes, parent, text) {
  const made = document.createElementNS(SVG, name);
  for (const key in attributes) made.setAttribute(key, attributes[key]);
  if (text !== undefined) made.textContent = text;
  if (parent) parent.appendChild(made);
  return made;
}
function element(name, className, parent, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  if (parent) parent.appendChild(made);
  return made;
}
function hover(target, text) {
  target.addEventListener("mousemove", (event) => {
    tip.textContent = text();
    tip.style.display = "block";
    const right = event.clientX > innerWidth - 490;
    tip.style.left = right ? "auto" : event.clientX + 14 + "px";
    tip.style.right = right ? innerWidth - event.clientX + 14 + "px" : "auto";
    tip.style.top = Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 8) + "px";
  });
  target.addEventListener("mouseleave", () => { tip.style.display = "none"; });
}
function clock(us) { return (us / 1000).toFixed(us % 1000 ? 3 : 0) + " ms"; }

class Diagram {
  constructor(data, parent) {
    this.data = data;
    this.zoom = 1;
    this.hidden = new Set(data.hops.length > 250 ? ["Status"] : []);
    this.root = element("div", "diagram", parent);
    this.root.id = "run-" + data.run;
    const head = element("div", "head", this.root);
    element("h3", "", head, data.title);
    for (const text of data.violations.slice(0, 4)) element("p", "broken", head, text);
    if (data.dropped) {
      element("p", "note", head, data.dropped + " messages are left out: heartbeats first, then what lies far from the violation.");
    }
    this.holder = element("div", "", this.root);
    this.holder.style.minHeight = TOP + data.lanes.length * LANE + 220 + "px";
    this.built = false;
  }

  build() {
    if (this.built) return;
    this.built = true;
    this.holder.style.minHeight = "";
    this.steps = this.makeSteps();
    this.twin = this.twins();
    this.bar();
    this.legend();
    const stage = element("div", "stage", this.holder);
    this.height = TOP + this.data.lanes.length * LANE + 26;
    this.names(element("div", "names", stage));
    this.scroll = element("div", "scroll", stage);
    this.scroll.tabIndex = 0;
    this.scroll.addEventListener("keydown", (event) => this.key(event));
    this.foot();
    this.scale();
    const room = this.scroll.clientWidth - 90;
    this.zoom = Math.min(9, Math.max(1, room / (this.places[this.places.length - 1] || room)));
    this.draw();
    if (this.data.focus >= 0) this.go(this.steps.findIndex((step) => step.broken));
    else {
      this.go(this.steps.length - 1);
      this.scroll.scrollLeft = 0;
    }
  }

  // --- steps ---
  twins() {
    const seen = new Map(), twin = new Map();
    for (const hop of this.data.hops) {
      const key = hop.slice(0, 4).join();
      twin.set(hop, seen.get(key) || 0);
      seen.set(key, twin.get(hop) + 1);
    }
    return twin;
  }
  makeSteps() {
    const { hops, marks, focus } = this.data;
    const steps = [];
    hops.forEach((hop, index) => {
      if (hop[3] < 0) steps.push({ at: hop[2], hop: index, lost: true });
      else steps.push({ at: hop[3], hop: index, lost: false });
    });
    marks.forEach((mark, index) => steps.push({ at: mark[0], mark: index }));
    if (focus >= 0) steps.push({ at: focus, broken: true });
    steps.sort((one, other) => one.at - other.at);
    return steps;
  }
  visible(step) { return step.hop === undefined || !this.hidden.has(this.kind(this.data.hops[step.hop])); }
  kind(hop) { return this.data.kinds[hop[4]]; }
  move(by) {
    let at = this.step;
    const towards = by < 0 ? -1 : 1;
    for (let left = Math.abs(by); left > 0; left--) {
      let next = at + towards;
      while (next >= 0 && next < this.steps.length && !this.visible(this.steps[next])) next += towards;
      if (next < 0 || next >= this.steps.length) break;
      at = next;
    }
    this.go(at);
  }
  key(event) {
    const by = event.shiftKey ? 10 : 1;
    if (event.key === "ArrowRight") this.move(by);
    else if (event.key === "ArrowLeft") this.move(-by);
    else if (event.key === "Home") this.go(0);
    else if (event.key === "End") this.go(this.steps.length - 1);
    else if (event.key === "+") this.rescale(1.4);
    else if (event.key === "-") this.rescale(1 / 1.4);
    else return;
    event.preventDefault();
  }

  // --- controls ---
  bar() {
    const bar = element("div", "bar", this.holder);
    const button = (text, title, action) => {
      const made = element("button", "", bar, text);
      made.title = title;
      made.addEventListener("click", action);
      return made;
    };
    button("|◀", "to the beginning (Home)", () => this.go(0));
    button("◀", "one step back (←, with shift 10)", () => this.move(-1)).classList.add("back");
    this.count = element("span", "count", bar);
    button("▶", "one step forward (→, with shift 10)", () => this.move(1)).classList.add("forward");
    button("▶|", "to the end (End)", () => this.go(this.steps.length - 1));
    if (this.data.focus >= 0) {
      button("✕ violation", "where the property broke", () => this.go(this.steps.findIndex((step) => step.broken)));
    }
    this.where = element("input", "where", bar);
    this.where.type = "range";
    this.where.max = this.steps.length - 1;
    this.where.addEventListener("input", () => this.go(Number(this.where.value)));
    button("−", "narrower (-)", () => this.rescale(1 / 1.4));
    button("+", "wider (+)", () => this.rescale(1.4));
  }
  legend() {
    const legend = element("div", "legend", this.holder);
    for (const kind of this.data.kinds) {
      const label = element("label", "", legend);
      const box = element("input", "", label);
      box.type = "checkbox";
      box.checked = !this.hidden.has(kind);
      box.addEventListener("change", () => {
        if (box.checked) this.hidden.delete(kind); else this.hidden.add(kind);
        this.draw();
        this.go(this.step);
      });
      element("i", "", label).style.background = COLOURS[kind] || OTHER;
      label.append(kind);
    }
    const signs = ["▲ crime", "■ executes a slot", "✕ stops", "↻ starts", "┄ lost", "red halo: a lie", "stripes: changing views"];
    for (const sign of signs) element("span", "sign", legend, sign);
  }
  names(parent) {
    const svg = node("svg", { width: 150, height: this.height }, parent);
    this.data.lanes.forEach((lane, index) => {
      const y = this.y(index);
      node("text", { x: 12, y: y + 4, "font-weight": 600, style: lane.crime ? "fill:#c22f2f" : "" }, svg, lane.name);
      if (!lane.crime) return;
      const short = lane.crime.length > 21 ? lane.crime.slice(0, 20) + "…" : lane.crime;
      const text = node("text", { x: 12, y: y + 18, style: "fill:#c22f2f;font-size:10px" }, svg, short);
      hover(text, () => lane.crime);
    });
  }
  foot() {
    const foot = element("div", "foot", this.holder);
    this.what = element("div", "what", foot);
    this.panel = element("table", "panel", foot);
  }

  // --- drawing ---
  y(lane) { return TOP + lane * LANE + LANE / 2; }
  scale() {
    // Time is compressed: pauses grow with their logarithm, so that bursts can be read and silence does not fill pages.
    const times = new Set();
    for (const hop of this.data.hops) {
      if (this.hidden.has(this.kind(hop))) continue;
      times.add(hop[2]);
      if (hop[3] >= 0) times.add(hop[3]);
    }
    for (const step of this.steps) if (step.hop === undefined) times.add(step.at);
    this.times = [...times].sort((one, other) => one - other);
    this.places = [];
    let x = 16;
    this.times.forEach((time, index) => {
      if (index) x += this.zoom * Math.min(34, 2 + 4.5 * Math.log10(1 + (time - this.times[index - 1]) / 40));
      this.places.push(x);
    });
    this.width = Math.max(x + 60, this.scroll.clientWidth - 2);
  }
  x(time) {
    let low = 0, high = this.times.length - 1;
    if (high < 0) return 16;
    if (time >= this.times[high]) return this.places[high] + (time > this.times[high] ? 12 : 0);
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.times[middle] < time) low = middle + 1; else high = middle;
    }
    if (this.times[low] === time || !low) return this.places[low];
    const span = this.times[low] - this.times[low - 1];
    return this.places[low - 1] + (this.places[low] - this.places[low - 1]) * (time - this.times[low - 1]) / span;
  }
  rescale(by) {
    this.zoom = Math.min(12, Math.max(.3, this.zoom * by));
    this.draw();
    this.go(this.step);
  }
  draw() {
    this.scale();
    this.scroll.textContent = "";
    this.labels = [0, 0, 0, 0]; // where the captions of vertical lines end, per row
    const svg = node("svg", { width: this.width, height: this.height }, this.scroll);
    const stripes = "stripes-" + this.data.run;
    const pattern = node("pattern", { id: stripes, width: 7, height: 7, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" }, node("defs", {}, svg));
    node("rect", { width: 3, height: 7, fill: "#8a93a3", opacity: .45 }, pattern);
    for (const lane in this.data.states) this.bands(svg, Number(lane), stripes);
    this.data.lanes.forEach((_, lane) => {
      node("line", { class: "lane", x1: 0, x2: this.width, y1: this.y(lane), y2: this.y(lane) }, svg);
    });
    this.ticks(svg);
    this.data.hops.forEach((hop, index) => { if (!this.hidden.has(this.kind(hop))) this.hop(svg, hop, index); });
    this.data.marks.forEach((mark, index) => this.mark(svg, mark, index));
    this.veil = node("rect", { class: "veil", y: TOP - 8, height: this.height - TOP + 8 }, svg);
    if (this.data.focus >= 0) this.event(svg, this.data.focus, "#c22f2f", "✕ broken", () => this.data.violations.join("\n"));
    this.now = node("line", { class: "now", y1: 14, y2: this.height }, svg);
    this.current = node("path", { class: "current" }, svg);
  }
  bands(svg, lane, stripes) {
    const states = this.data.states[lane], columns = this.data.columns;
    const [view, active, up] = ["view", "active", "up"].map((name) => columns.indexOf(name));
    const sameBand = (one, other) => [view, active, up].every((place) => one[place] === other[place]);
    for (let from = 0; from < states.length;) {
      let until = from + 1;
      while (until < states.length && sameBand(states[from][1], states[until][1])) until++;
      const values = states[from][1];
      const x = from ? this.x(states[from][0]) : 0;
      const width = (until < states.length ? this.x(states[until][0]) : this.width) - x;
      const box = { x, y: this.y(lane) - BAND / 2, width: Math.max(width, 0), height: BAND };
      const group = node("g", {}, svg);
      node("rect", { ...box, fill: values[up] ? VIEWS[(values[view] || 0) % VIEWS.length] : "#d4d7dd" }, group);
      if (!values[active] || !values[up]) node("rect", { ...box, fill: `url(#${stripes})` }, group);
      if (width > 26) {
        const text = values[up] ? "v" + values[view] + (values[active] ? "" : "?") : "down";
        node("text", { x: x + 4, y: this.y(lane) - BAND / 2 + 10, style: "fill:#667085;font-size:10px" }, group, text);
      }
      from = until;
    }
  }
  ticks(svg) {
    let last = -100;
    this.times.forEach((time, index) => {
      const x = this.places[index];
      if (x - last < 84) return;
      last = x;
      node("text", { class: "tick", x, y: this.height - 6 }, svg, clock(time));
      node("line", { x1: x, x2: x, y1: this.height - 20, y2: this.height - 16, stroke: "#98a2b3" }, svg);
    });
  }
  path(hop) {
    const shift = 4 * (this.twin.get(hop) || 0); // messages sent together lie side by side
    const x1 = this.x(hop[2]) + shift, y1 = this.y(hop[0]), y2 = this.y(hop[1]);
    if (hop[3] >= 0) {
      const x2 = this.x(hop[3]) + shift;
      const angle = Math.atan2(y2 - y1, x2 - x1);
      const wing = (by) => `${x2 - 6 * Math.cos(angle + by)} ${y2 - 6 * Math.sin(angle + by)}`;
      return `M${x1} ${y1}L${x2} ${y2}M${wing(.4)}L${x2} ${y2}L${wing(-.4)}`;
    }
    const part = .35, x2 = x1 + 10, y = y1 + (y2 - y1) * part;
    return `M${x1} ${y1}L${x2} ${y}M${x2 - 3} ${y - 3}l6 6m0 -6l-6 6`;
  }
  hop(svg, hop, index) {
    const group = node("g", { class: "message" }, svg);
    const d = this.path(hop), colour = COLOURS[this.kind(hop)] || OTHER;
    if (hop[6]) node("path", { class: "halo", d }, group);
    node("path", { class: "hop" + (hop[3] < 0 ? " lost" : "") + (hop[6] ? " lie" : ""), d, stroke: colour }, group);
    node("path", { class: "hit", d }, group);
    hover(group, () => this.hopText(hop).join("\n"));
    group.addEventListener("click", () => this.go(this.steps.findIndex((step) => step.hop === index)));
  }
  hopText(hop) {
    const name = (lane) => this.data.lanes[lane].name;
    const fate = hop[3] < 0 ? "lost" : `arrives ${clock(hop[3])}`;
    return [`${this.kind(hop)}  ${name(hop[0])} → ${name(hop[1])}${hop[6] ? "  (a lie)" : ""}`,
      `sent ${clock(hop[2])}, ${fate}. ${this.data.contents[hop[5]]}`];
  }
  event(svg, at, colour, text, content) {
    const x = this.x(at), group = node("g", {}, svg);
    let row = this.labels.findIndex((end) => end < x);
    if (row < 0) row = this.labels.length - 1;
    this.labels[row] = x + 10 + 6.2 * text.length;
    const y = 13 + 13 * row;
    node("line", { class: "event", x1: x, x2: x, y1: y - 8, y2: this.height - 20, stroke: colour }, group);
    node("text", { x: x + 3, y, style: `fill:${colour};font-weight:600` }, group, text);
    hover(group, content);
  }
  mark(svg, mark, index) {
    const [at, lane, kind, text] = mark;
    const content = () => `${kind} at ${clock(at)}${lane >= 0 ? " at " + this.data.lanes[lane].name : ""}\n${text}`;
    if (lane < 0) { this.event(svg, at, kind === "gst" || kind === "heal" ? "#1a7f4b" : "#7b3fa0", kind, content); return; }
    const x = this.x(at), y = this.y(lane), group = node("g", { style: "cursor:pointer" }, svg);
    if (kind === "execute") node("rect", { x: x - 4, y: y - 4, width: 8, height: 8, fill: "#14532d", rx: 1 }, group);
    else if (kind === "crime") node("path", { d: `M${x} ${y - 15}l5 9h-10z`, fill: "#e5383b" }, group);
    else if (kind === "restart") node("text", { x: x - 6, y: y + 6, style: "font-size:17px;fill:#14532d" }, group, "↻");
    else if (kind === "clock") node("text", { x: x - 6, y: y + 6, style: "font-size:15px" }, group, "◷");
    else node("path", { d: `M${x - 6} ${y - 6}l12 12m0 -12l-12 12`, stroke: "#111827", "stroke-width": 3 }, group);
    hover(group, content);
    group.addEventListener("click", () => this.go(this.steps.findIndex((step) => step.mark === index)));
  }

  // --- the present step ---
  go(step) {
    this.step = Math.max(0, Math.min(step, this.steps.length - 1));
    const present = this.steps[this.step];
    if (!present) return;
    const x = this.x(present.at);
    this.veil.setAttribute("x", x + 1);
    this.veil.setAttribute("width", Math.max(0, this.width - x));
    this.now.setAttribute("x1", x);
    this.now.setAttribute("x2", x);
    const hop = present.hop === undefined ? null : this.data.hops[present.hop];
    this.current.setAttribute("d", hop ? this.path(hop) : "");
    if (hop) this.current.setAttribute("stroke", COLOURS[this.kind(hop)] || OTHER);
    this.where.value = this.step;
    this.count.textContent = `${this.step + 1} of ${this.steps.length}`;
    const left = this.scroll.scrollLeft, room = this.scroll.clientWidth;
    if (x < left + 60 || x > left + room - 100) this.scroll.scrollLeft = x - room * .6;
    this.tell(present, hop);
    this.fill(present.at, this.step ? this.steps[this.step - 1].at : -1);
  }
  tell(present, hop) {
    this.what.textContent = "";
    let lines;
    if (hop) lines = this.hopText(hop);
    else if (present.broken) lines = ["✕ here the property is broken", ...this.data.violations];
    else {
      const [, lane, kind, text] = this.data.marks[present.mark];
      lines = [kind + (lane >= 0 ? " at " + this.data.lanes[lane].name : ""), text];
    }
    element("div", "", this.what, clock(present.at));
    lines.forEach((line, index) => element(index ? "div" : "b", "", this.what, line));
  }
  fill(at, before) {
    const columns = this.data.columns, up = columns.indexOf("up"), active = columns.indexOf("active");
    const state = (states, time) => {
      let found = null;
      for (const entry of states) if (entry[0] <= time) found = entry[1];
      return found;
    };
    this.panel.textContent = "";
    const head = element("tr", "", this.panel);
    element("th", "", head);
    for (const name of columns) if (name !== "up") element("th", "", head, name === "active" ? "mode" : name);
    for (const lane in this.data.states) {
      const now = state(this.data.states[lane], at), then = state(this.data.states[lane], before);
      const about = this.data.lanes[lane];
      const row = element("tr", (about.crime ? "corrupt " : "") + (now && !now[up] ? "down" : ""), this.panel);
      element("th", "", row, about.name);
      columns.forEach((name, place) => {
        if (place === up) return;
        const value = now ? now[place] : null;
        let text = value === null ? "–" : String(value);
        if (place === active) text = !now ? "–" : !now[up] ? "down" : value ? "active" : "changing";
        const cell = element("td", "", row, text);
        if (now && then && (now[place] !== then[place] || (place === active && now[up] !== then[up]))) cell.className = "changed";
      });
    }
  }
}

const section = document.getElementById("diagrams");
const data = JSON.parse(document.getElementById("data").textContent);
if (data.length) element("h2", "", section, "Runs, step by step");
const diagrams = data.map((one) => new Diagram(one, section));
const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) diagrams.find((one) => one.root === entry.target).build();
}, { rootMargin: "400px" });
diagrams.forEach((one, index) => { if (index) watcher.observe(one.root); else one.build(); });
document.body.dataset.drawn = diagrams.length;

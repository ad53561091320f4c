"use strict";
// Asks /v1/ui/state once a second and draws it. Every text goes in as text, never as markup.
const PERIOD = 1000, KEPT = 120, HUES = 6;
const STAGES = ["entry", "queue", "batch", "device", "reply"];
const past = new Map();   // "model version" -> points
const hues = new Map();      // backend -> hue
let key = "";
let before = null;           // {time, answered by model}

const $ = (id) => document.getElementById(id);

function make(name, attributes = {}, ...children) {
  const svg = ["svg", "path", "rect", "text", "polyline", "title", "g"].includes(name);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [k, v] of Object.entries(attributes)) node.setAttribute(k, v);
  node.append(...children.filter((c) => c !== null && c !== undefined));
  return node;
}

function scaled(value, units) {
  for (const [unit, size] of units) if (Math.abs(value) >= size) return `${+(value / size).toPrecision(3)} ${unit}`;
  const [unit, size] = units[units.length - 1];
  return `${+(value / size).toPrecision(3)} ${unit}`;
}
const seconds = (s) => s ? scaled(s, [["s", 1], ["ms", 1e-3], ["µs", 1e-6]]) : "0";
const bytes = (b) => b ? scaled(b, [["GB", 1e9], ["MB", 1e6], ["kB", 1e3], ["B", 1]]) : "–";
const count = (n) => n.toLocaleString("en");

function hue(name) {
  if (!hues.has(name)) hues.set(name, hues.size % HUES);
  return hues.get(name);
}

function table(columns, rows) {
  const head = make("tr", {}, ...columns.map((c) => make("th", {}, c)));
  return make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows));
}

function plot(title, lines, show) {
  const top = Math.max(1e-12, ...lines.flatMap((l) => l.points));
  const drawn = lines.map((l) => {
    const points = l.points.map((v, i) => `${(KEPT - l.points.length + i) * 240 / (KEPT - 1)},${48 - 44 * v / top}`);
    return make("polyline", { class: `s${l.hue}`, points: points.join(" ") });
  });
  const last = lines.map((l) => `${l.name} ${show(l.points[l.points.length - 1] ?? 0)}`).join(" · ");
  const picture = make("svg", { viewBox: "0 0 240 50", role: "img", "aria-label": `${title}: ${last}` }, ...drawn);
  return make("figure", {}, make("figcaption", {}, `${title}: ${last}`), picture);
}

// Partitions from top to bottom in the order of the plan; what crosses is a curve with its bytes.
function partitions(picture) {
  const width = 420, box = 230, height = 42, gap = 34;
  const place = new Map(picture.partitions.map((p, i) => [p.id, i * (height + gap)]));
  const parts = picture.partitions.flatMap((p) => {
    const y = place.get(p.id), h = hue(p.backend), x = (width - box) / 2;
    const title = make("title", {}, `${p.id}\nin: ${p.inputs.join(", ")}\nout: ${p.outputs.join(", ")}`);
    return [make("g", { "data-partition": p.id }, title,
      make("rect", { class: `part s${h}`, x, y, width: box, height, rx: 6 }),
      make("text", { x: width / 2, y: y + 18 }, `${p.backend} · ${p.precision}`),
      make("text", { class: "small", x: width / 2, y: y + 34 }, `${count(p.nodes)} nodes, ${seconds(p.seconds)}`))];
  });
  const edges = picture.boundaries.map((b, i) => {
    const from = place.get(b.producer) + height, to = place.get(b.consumer);
    const far = to - from > gap + 1 || to < from;
    const x = width / 2 + (far ? box / 2 - 8 : (i % 5 - 2) * 16), bend = far ? 40 + 8 * (i % 5) : 0;
    const line = `M${x} ${from}C${x + bend} ${from + gap} ${x + bend} ${to - gap} ${x} ${to}`;
    return make("path", { d: line }, make("title", {}, `${b.tensor}: ${b.kind}, ${bytes(b.bytes)}, ${seconds(b.seconds)}`));
  });
  const tall = picture.partitions.length * (height + gap) - gap;
  const note = picture.more ? ` (${picture.more} more are not drawn)` : "";
  const drawing = make("svg", { viewBox: `0 -2 ${width} ${tall + 4}`, role: "img", "aria-label": "partitions" }, ...edges, ...parts);
  return make("figure", {}, make("figcaption", {}, `partitions${note}`), make("div", { class: "scroll" }, drawing));
}

function model(m, points) {
  const aliases = m.aliases.length ? ` (${m.aliases.join(", ")})` : "";
  const state = make("span", { class: m.state === "ready" ? "dim" : "bad" }, ` ${m.state}${m.reason ? ": " + m.reason : ""}`);
  const waste = m.rows ? ` · padding ${(100 * m.padded_rows / (m.rows + m.padded_rows)).toFixed(1)} %` : "";
  const size = m.batches ? ` · ${(m.rows / m.batches).toFixed(1)} rows a batch${waste}` : "";
  const facts = `${m.engines.join(", ") || "no engine"} · ${bytes(m.memory_bytes)} · ${count(m.answered)} answered${size}`;
  const of = (name) => points.map((p) => p[name]);
  return make("article", { class: "model", "data-model": m.name, "data-version": m.version },
    make("h3", {}, `${m.name} · version ${m.version}${aliases}`, state), make("p", { class: "dim" }, facts),
    make("div", { class: "plots" },
      plot("queue, rows", [{ name: "now", hue: 3, points: of("queue") }], count),
      plot("latency", [{ name: "p50", hue: 0, points: of("p50") }, { name: "p99", hue: 1, points: of("p99") }], seconds),
      plot("answers a second", [{ name: "now", hue: 2, points: of("rate") }], (v) => v.toFixed(1)),
      m.picture ? partitions(m.picture) : null));
}

function slow(r) {
  const bar = [];
  let x = 0;
  for (const [name, took] of r.stages) {
    const w = 200 * took / (r.seconds || 1);
    const h = STAGES.includes(name) ? STAGES.indexOf(name) : 5;
    bar.push(make("rect", { class: `f${h}`, x, y: 0, width: w, height: 12 }, make("title", {}, `${name} ${seconds(took)}`)));
    x += w;
  }
  const worst = [...r.stages].sort((a, b) => b[1] - a[1])[0] || ["", 0];
  return make("tr", {}, make("td", {}, make("code", {}, r.trace_id)), make("td", {}, `${r.model} ${r.version}`),
    make("td", {}, `${r.client}, ${r.transport}`), make("td", {}, r.code),
    make("td", { class: "number" }, seconds(r.seconds)), make("td", {}, `${worst[0]} ${seconds(worst[1])}`),
    make("td", { class: "bar" }, make("svg", { viewBox: "0 0 200 12", preserveAspectRatio: "none", height: 12 }, ...bar)),
    make("td", { class: "number" }, `${Math.round(r.ago_s)} s ago`));
}

function remember(now, state) {
  const answered = {};
  for (const m of state.models) {
    const name = `${m.name} ${m.version}`;
    answered[name] = m.answered;
    const passed = before ? (now - before.time) / 1000 : 0;
    const rate = before && passed > 0 ? Math.max(0, m.answered - (before.answered[name] ?? m.answered)) / passed : 0;
    const points = past.get(name) || [];
    points.push({ queue: m.queue_rows, p50: m.p50_s, p99: m.p99_s, rate });
    past.set(name, points.slice(-KEPT));
  }
  for (const name of past.keys()) if (!(name in answered)) past.delete(name);
  before = { time: now, answered };
}

function draw(state) {
  const codes = Object.entries(state.requests).map(([code, n]) => `${count(n)} ${code}`).join(", ");
  const cache = state.cache ? ` · cache ${(100 * state.cache.hit_rate).toFixed(0)} % hits, ${bytes(state.cache.bytes)}` : "";
  const open = state.open ? " · open to anybody who reaches it" : "";
  $("summary").textContent = `${state.state} · ${count(state.inflight)} in flight · ${codes || "no request yet"}${cache}${open}`;
  $("models").replaceChildren(...state.models.map((m) => model(m, past.get(`${m.name} ${m.version}`))));
  const columns = ["trace", "model", "client", "code", "took", "most in", "entry, queue, batch, device, reply", ""];
  $("slow").replaceChildren(state.slow.length ? table(columns, state.slow.map(slow)) : make("p", { class: "dim" }, "None so far."));
  const devices = (state.devices || []).map((d) => make("tr", {}, make("td", {}, d.name), make("td", {}, d.kind),
    make("td", {}, d.backend), make("td", { class: "number" }, bytes(d.memory_bytes))));
  $("devices").replaceChildren(state.devices ? table(["device", "kind", "backend", "memory"], devices) : make("p", { class: "dim" }, "Looking…"));
  $("main").hidden = false;
  $("login").hidden = true;
  document.body.dataset.drawn = String(Number(document.body.dataset.drawn || 0) + 1);
}

async function ask() {
  const headers = key ? { authorization: `Bearer ${key}` } : {};
  const reply = await fetch("/v1/ui/state", { headers, cache: "no-store", signal: AbortSignal.timeout(10000) });
  if (reply.status === 401 || reply.status === 403) {
    $("refused").textContent = key ? "This key may not see the server." : "";
    $("summary").textContent = "a key is needed";
    $("main").hidden = true;
    $("login").hidden = false;
    return false;
  }
  if (!reply.ok) throw new Error(`the server says ${reply.status}`);
  const state = await reply.json();
  remember(performance.now(), state);
  draw(state);
  return true;
}

async function loop() {
  let go = true;
  try {
    // A page that nobody looks at costs the server nothing.
    if (!document.hidden) go = await ask();
  } catch (error) {
    $("summary").textContent = `no answer: ${error.message}`;
  }
  if (go) setTimeout(loop, PERIOD);
}

$("login").addEventListener("submit", (event) => {
  event.preventDefault();
  key = $("key").value.trim();
  loop();
});
loop();

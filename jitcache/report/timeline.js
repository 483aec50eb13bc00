// The timeline: one row per worker, on a canvas because there may be 20,000 commands.
const byOutput = new Map(E.map((e, i) => [e[OUTPUT], i]));
const chainOf = R.chain.map((k) => byOutput.get(k.output)).filter((i) => i !== undefined);
const pathOf = R.critical_path.map((o) => byOutput.get(o)).filter((i) => i !== undefined);
let lit = new Set(pathOf), litOrder = pathOf;
let shown = [], chosen = -1, from = 0, to = wall;

const cv = $("chart"), cx = cv.getContext("2d");
const lanes = E.reduce((n, e) => Math.max(n, e[LANE] + 1), 1), AXIS = 22, GUTTER = lanes > 40 ? 0 : 30;
const rowH = Math.max(4, Math.min(30, Math.floor(440 / lanes)));
let rects = [];

function step(width) {
  const raw = (to - from) / Math.max(2, width / 110), p = 10 ** Math.floor(Math.log10(raw));
  return [1, 2, 5, 10].map((m) => m * p).find((s) => s >= raw);
}

// As much of a name as there is room for, and its time if the name stays readable.
function fitted(name, time, room) {
  for (const tail of ["  " + time, ""]) {
    const space = room - cx.measureText(tail).width, width = cx.measureText(name).width;
    if (width <= space) return name + tail;
    const most = Math.floor(name.length * space / width) - 1;
    if (most >= 16) return cut(name, most) + tail;
    if (most >= 4 && !tail) return name.slice(0, most) + "\u2026";
  }
  return "";
}

function draw() {
  const w = cv.clientWidth, h = Math.min(lanes * rowH, 2000) + AXIS + 4, d = devicePixelRatio || 1;
  cv.style.height = h + "px"; cv.width = w * d; cv.height = h * d; cx.setTransform(d, 0, 0, d, 0, 0);
  const css = getComputedStyle(document.documentElement), col = (n) => css.getPropertyValue("--" + n).trim();
  const colour = { bar: col("bar"), barFg: col("bar-fg"), hot: col("hot"), hotFg: col("hot-fg"), soft: col("soft"),
    line: col("line"), focus: col("focus") };
  const k = (w - GUTTER) / (to - from), X = (t) => GUTTER + (t - from) * k, Y = (lane) => AXIS + lane * rowH + 2;
  cx.clearRect(0, 0, w, h); cx.font = "12px system-ui, sans-serif"; cx.textBaseline = "middle";
  const s = step(w), digits = Math.max(0, Math.min(6, -Math.floor(Math.log10(s) + 1e-9)));
  for (let n = Math.ceil(from / s); n * s <= to; n++) {
    const x = Math.round(X(n * s)); cx.fillStyle = colour.line; cx.fillRect(x, 0, 1, h);
    cx.fillStyle = colour.soft; cx.fillText((n * s).toFixed(digits) + " s", x + 4, AXIS / 2);
  }
  if (GUTTER && rowH >= 12) {
    cx.fillStyle = colour.soft; cx.textAlign = "right";
    for (let n = 0; n < lanes; n++) cx.fillText(n + 1, GUTTER - 8, Y(n) + rowH / 2 - 1);
    cx.textAlign = "left";
  }
  cx.save(); cx.beginPath(); cx.rect(GUTTER, 0, w - GUTTER, h); cx.clip();
  rects = [];
  const paint = (i, hot) => {
    const e = E[i]; if (e[START] > to || e[START] + e[TIME] < from) return;
    const x = X(e[START]), bw = Math.max(1, e[TIME] * k - 1), y = Y(e[LANE]);
    cx.fillStyle = hot ? colour.hot : colour.bar; cx.fillRect(x, y, bw, rowH - 2);
    if (i === chosen) { cx.strokeStyle = colour.focus; cx.lineWidth = 2; cx.strokeRect(x - 1, y - 1, bw + 2, rowH); }
    rects.push([x, y, bw, i]);
    const left = Math.max(x, GUTTER), room = Math.min(x + bw, w) - left - 10;
    if (rowH >= 14 && room > 36) {
      cx.fillStyle = hot ? colour.hotFg : colour.barFg;
      cx.fillText(fitted(e[LABEL], sec(e[TIME]), room), left + 5, y + rowH / 2 - 1);
    }
  };
  for (const i of shown) if (!lit.has(i)) paint(i, false);
  // How the lit commands follow one another.
  cx.strokeStyle = colour.hot; cx.lineWidth = 1.5;
  for (let n = 1; n < litOrder.length; n++) {
    const a = E[litOrder[n - 1]], b = E[litOrder[n]], x = X(Math.min(a[START] + a[TIME], b[START]));
    if (a[LANE] === b[LANE]) continue;
    cx.beginPath(); cx.moveTo(x, Y(a[LANE]) + rowH / 2 - 1); cx.lineTo(X(b[START]), Y(b[LANE]) + rowH / 2 - 1); cx.stroke();
  }
  for (const i of shown) if (lit.has(i)) paint(i, true);
  cx.restore();
}
redraws.push(draw);

function view(a, z) {
  const span = Math.min(wall, Math.max(z - a, wall / 1e5, 2e-3));
  from = Math.min(Math.max(0, a), Math.max(0, wall - span)); to = from + span; draw();
}
function zoom(by, at = 0.5) { const m = from + (to - from) * at; view(m - (m - from) * by, m + (to - m) * by); }
function hit(ev) {
  const r = cv.getBoundingClientRect(), x = ev.clientX - r.left, y = ev.clientY - r.top;
  for (let n = rects.length - 1; n >= 0; n--) { const [a, t, w, i] = rects[n];
    if (x >= a - 1 && x <= a + w + 1 && y >= t && y < t + rowH) return i; }
  return -1;
}

function details(i) {
  const e = E[i], box = $("tip"), first = node("p"), facts = [], more = [];
  const name = node("strong", e[LABEL]); if (lit.has(i)) name.className = "hot";
  facts.push(": " + sec(e[TIME]), "from " + sec(e[START]) + " to " + sec(e[START] + e[TIME]));
  facts.push(e[HOT] ? "on the critical path" : "slack " + sec(e[SLACK]));
  if (e[RULE]) facts.push("rule " + e[RULE]);
  if (e[CPU] !== null) facts.push(e[CPU].toFixed(1) + " s CPU", (e[RSS] / 1048576).toFixed(0) + " MiB");
  first.append(name, facts.join(", ").replace(/^, /, ""));
  if (e[NEEDS].length) more.push("waits for " + e[NEEDS].map((n) => E[n][LABEL]).join(", ")
    + (e[MORE] ? " and " + e[MORE] + " more" : ""));
  const link = R.chain.find((c) => c.output === e[OUTPUT]);
  if (link) more.push({ input: "began when its last input was there", slot: "began when a job was free",
    pool: "began when its pool had room", start: "began with the build" }[link.reason]);
  box.className = "tip wrap on";
  box.replaceChildren(first, node("p", e[OUTPUT], "soft"), node("p", more.join("; "), "soft"));
}
function choose(i) {
  chosen = i; details(i);
  const e = E[i];
  if (e[START] > to || e[START] + e[TIME] < from) view(e[START] - e[TIME], e[START] + 2 * e[TIME] + 1e-3); else draw();
  for (const tr of $("rows").children) tr.setAttribute("aria-current", +tr.dataset.i === i);
}
function walk(by) {
  const order = [...shown].sort((a, b) => E[a][START] - E[b][START] || E[a][LANE] - E[b][LANE]);
  const at = order.indexOf(chosen);
  if (order.length) choose(order[Math.min(order.length - 1, Math.max(0, at < 0 ? 0 : at + by))]);
}

let drag = null;
cv.addEventListener("wheel", (ev) => { if (!ev.ctrlKey && !ev.shiftKey) return; ev.preventDefault();
  const r = cv.getBoundingClientRect(); zoom(ev.deltaY > 0 ? 1.25 : 0.8, (ev.clientX - r.left - GUTTER) / (r.width - GUTTER)); },
  { passive: false });
cv.addEventListener("pointerdown", (ev) => { drag = [ev.clientX, from, false]; cv.setPointerCapture(ev.pointerId); });
cv.addEventListener("pointermove", (ev) => {
  if (drag) { const dx = ev.clientX - drag[0]; if (Math.abs(dx) > 3) drag[2] = true;
    if (drag[2]) { const a = drag[1] - dx * (to - from) / cv.clientWidth; view(a, a + to - from); } return; }
  const i = hit(ev); if (i >= 0) details(i); });
cv.addEventListener("pointerleave", () => { if (chosen >= 0) details(chosen); });
cv.addEventListener("pointerup", (ev) => { if (drag && !drag[2]) { const i = hit(ev); if (i >= 0) choose(i); } drag = null; });
cv.addEventListener("keydown", (ev) => { const s = (to - from) / 5;
  const act = { "+": () => zoom(0.5), "=": () => zoom(0.5), "-": () => zoom(2), "0": () => view(0, wall),
    ArrowLeft: () => view(from - s, to - s), ArrowRight: () => view(from + s, to + s),
    ArrowUp: () => walk(-1), ArrowDown: () => walk(1) }[ev.key];
  if (act) { ev.preventDefault(); act(); } });
$("in").onclick = () => zoom(0.5); $("out").onclick = () => zoom(2); $("all").onclick = () => view(0, wall);
$("lit").onchange = () => {
  litOrder = $("lit").value === "chain" ? chainOf : pathOf; lit = new Set(litOrder);
  filter();
};

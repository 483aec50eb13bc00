// Inside translation units: phases, the flame, and the names that cost most.
const I = R.inside;
const [F_NAME, F_PHASE, F_COUNT, F_TOTAL, F_SELF, F_CHILDREN] = [0, 1, 2, 3, 4, 5];
const ROW = 20;
let unit = null, root = null, trail = [], focused = null;

function chooseUnit(n) {
  unit = I.units[n];
  $("i-source").textContent = unit.source + (unit.targets.length ? " for " + unit.targets.join(", ") : "")
    + (unit.notes.length ? "; " + unit.notes.join("; ") : "");
  const total = unit.total_s, said = [];
  $("phases").replaceChildren(); $("legend").replaceChildren();
  I.phases.forEach((name, p) => {
    const s = unit.phases[name], bar = node("i", name, "p" + p), li = node("li"), dot = node("i", undefined, "p" + p);
    bar.style.width = s / total * 100 + "%"; bar.style.padding = s / total < .03 ? "0" : "";
    if (s / total < .06) bar.textContent = "";
    $("phases").append(bar);
    said.push(name + " " + sec(s));
    li.append(dot, name + " " + sec(s) + ", " + percent(s, total));
    $("legend").append(li);
  });
  $("phases").setAttribute("aria-label", sec(total) + ": " + said.join(", "));
  $("costs").replaceChildren(costTable("Templates by self time", unit.templates, "template"),
    costTable("Headers, while innermost open", unit.headers, "header"),
    costTable("What the compiler did", unit.activities.map((a) => ({ ...a, name: a.name + " (" + a.phase + ")" })), "span"));
  trail = []; root = unit.flame; focused = root; flame();
}

// Of a path its end tells most.
const ending = (path, most) => path.length <= most ? path : "\u2026" + path.slice(path.length - most + 1);

function costTable(title, list, what) {
  const box = node("section"), h = node("h3", title), scroll = node("div", undefined, "scroll"), table = node("table");
  const head = node("tr"), body = node("tbody"), thead = node("thead");
  for (const [name, cls] of [["self, s", ""], ["total, s", ""], ["count", ""], [what, "text"]]) {
    const th = node("th", name, cls); th.scope = "col"; head.append(th);
  }
  for (const c of list) {
    const tr = node("tr"), name = node("td", what === "header" ? ending(c.name, 52) : c.name, "text");
    name.title = c.name;
    tr.append(node("td", c.self_s.toFixed(3)), node("td", c.total_s.toFixed(3)), node("td", c.count), name);
    body.append(tr);
  }
  scroll.tabIndex = 0; scroll.setAttribute("role", "region"); scroll.setAttribute("aria-label", title);
  thead.append(head); table.append(thead, body); scroll.append(table); box.append(h, scroll);
  return box;
}

// The colour tells that it is an instantiation; the room is for what is instantiated, and
// its namespaces are in the text above the flame.
const frameName = (name) => name.replace(/^Instantiate(Function|Class): (?:[a-z_][a-z0-9_]*::)*(?=[\w~]+::)/, "");

function frameText(f) {
  return f[F_NAME] + ": " + sec(f[F_TOTAL] / 1e6) + ", " + percent(f[F_TOTAL], unit.flame[F_TOTAL]) + " of the unit, "
    + sec(f[F_SELF] / 1e6) + " itself, " + f[F_COUNT] + (f[F_COUNT] === 1 ? " time, " : " times, ") + I.phases[f[F_PHASE]];
}

function flame() {
  const box = $("flame"), width = box.clientWidth - 2, boxes = [], above = trail.map((t) => t[0]);
  let deepest = 0;
  const place = (f, x, w, depth, parent) => {
    const d = node("div", frameName(f[F_NAME]), "p" + f[F_PHASE] + (depth < above.length ? " faded" : ""));
    d.style.left = x + 1 + "px"; d.style.top = depth * ROW + 1 + "px"; d.style.width = Math.max(1, w - 1) + "px";
    d.style.padding = w < 10 ? "0" : ""; if (w < 24) d.textContent = "";
    d.setAttribute("role", "treeitem"); d.setAttribute("aria-level", depth + 1);
    d.setAttribute("aria-label", frameText(f)); d.tabIndex = f === focused ? 0 : -1;
    d.frame = f; d.up = parent; d.down = []; d.beside = parent ? parent.down : [];
    if (parent) parent.down.push(d);
    boxes.push(d); deepest = Math.max(deepest, depth);
    return d;
  };
  let parent = null;
  above.forEach((f, depth) => { parent = place(f, 0, width, depth, parent); });
  const stack = [[root, 0, width, above.length, parent]];
  while (stack.length) {
    const [f, x, w, depth, up] = stack.pop(), d = place(f, x, w, depth, up), todo = [];
    let at = x;
    for (const c of f[F_CHILDREN]) {
      const cw = w * c[F_TOTAL] / (f[F_TOTAL] || 1);
      if (cw >= 1.5) todo.push([c, at, cw, depth + 1, d]);
      at += cw;
    }
    stack.push(...todo.reverse());
    if (f[F_CHILDREN].length) d.setAttribute("aria-expanded", todo.length > 0);
  }
  if (!boxes.some((d) => d.tabIndex === 0)) boxes[above.length].tabIndex = 0;
  box.style.height = Math.min(540, (deepest + 1) * ROW + 4) + "px";
  box.replaceChildren(...boxes);
  $("f-root").disabled = trail.length === 0;
}

function flameInto(f) {
  if (f === root) return;
  const at = trail.findIndex((t) => t[0] === f);
  if (at >= 0) trail = trail.slice(0, at);
  else {
    // The frames between: the way down from the present root.
    const way = [], found = (g) => g === f || g[F_CHILDREN].some((c) => found(c) && way.unshift(c) > 0);
    found(root); trail.push([root], ...way.slice(0, -1).map((g) => [g]));
  }
  root = f; focused = f; flame();
  const d = [...$("flame").children].find((x) => x.frame === f); if (d) d.focus();
}

if (I) {
  $("s-inside").hidden = false;
  I.units.forEach((u, n) => { const o = node("option", u.label + " \u2014 " + sec(u.total_s)); o.value = n; $("unit").append(o); });
  $("unit").onchange = () => chooseUnit(+$("unit").value);
  $("f-root").onclick = () => flameInto(unit.flame);
  const box = $("flame"), told = (ev) => { if (ev.target.frame) $("f-tip").textContent = frameText(ev.target.frame); };
  box.addEventListener("pointerover", told); box.addEventListener("focusin", told);
  box.addEventListener("click", (ev) => { if (ev.target.frame) flameInto(ev.target.frame); });
  box.addEventListener("keydown", (ev) => {
    const d = ev.target; if (!d.frame) return;
    const at = d.beside.indexOf(d), next = { ArrowUp: d.up, ArrowDown: d.down[0],
      ArrowLeft: d.beside[at - 1], ArrowRight: d.beside[at + 1] }[ev.key];
    if (ev.key.startsWith("Arrow")) { ev.preventDefault(); if (next) { d.tabIndex = -1; next.tabIndex = 0; focused = next.frame; next.focus(); } }
    if (ev.key === "Enter" || ev.key === " ") { ev.preventDefault(); flameInto(d.frame); }
    if (ev.key === "Escape" && trail.length) { ev.preventDefault(); flameInto(trail[trail.length - 1][0]); }
  });
  redraws.push(flame);
  chooseUnit(0);
}

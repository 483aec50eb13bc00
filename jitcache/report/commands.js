// The table of commands: the same as the timeline, to sort, to search and to hear.
const PAGE = 200;
const haystack = E.map((e) => (e[LABEL] + "\n" + e[OUTPUT]).toLowerCase());
let sortKey = TIME, down = true, limit = PAGE;
const columns = [["", HOT], ["command", LABEL], ["start, s", START], ["time, s", TIME], ["slack, s", SLACK]];
const measured = E.some((e) => e[CPU] !== null);
if (measured) columns.push(["CPU, s", CPU], ["memory, MiB", RSS]);

for (const [name, key] of columns) {
  const th = node("th"), bt = node("button", name || "*");
  th.scope = "col"; bt.type = "button"; if (key === LABEL) th.className = "text";
  if (!name) bt.setAttribute("aria-label", "lit");
  bt.onclick = () => { down = sortKey === key ? !down : key !== LABEL; sortKey = key; filter(); };
  th.dataset.key = key; th.append(bt); $("head").append(th);
}
{
  const th = node("th", "when", "text"); th.scope = "col"; $("head").append(th);
}

function filter() {
  const q = $("search").value.trim().toLowerCase(), only = $("only").checked;
  shown = [];
  for (let i = 0; i < E.length; i++)
    if ((!only || lit.has(i)) && (!q || haystack[i].includes(q))) shown.push(i);
  const sign = down ? -1 : 1, value = sortKey === HOT ? (i) => +lit.has(i) : (i) => E[i][sortKey];
  shown.sort((x, y) => { const a = value(x), b = value(y);
    return sign * (typeof a === "string" ? a.localeCompare(b) : (a ?? -1) - (b ?? -1)) || x - y; });
  for (const th of $("head").children) if (th.dataset.key)
    th.setAttribute("aria-sort", +th.dataset.key !== sortKey ? "none" : down ? "descending" : "ascending");
  $("count").textContent = shown.length + " of " + E.length + " commands";
  limit = PAGE; rows(); draw();
}

function where(e, hot) {
  const box = node("span", undefined, "where"), bar = node("i", undefined, hot ? "lit" : "");
  bar.style.left = e[START] / wall * 100 + "%"; bar.style.width = e[TIME] / wall * 100 + "%";
  box.append(bar);
  return box;
}
function rows() {
  $("rows").replaceChildren(...shown.slice(0, limit).map((i) => {
    const e = E[i], tr = node("tr"), hot = lit.has(i), mark = node("td", hot ? "*" : "", "lit");
    tr.dataset.i = i; tr.tabIndex = 0; tr.setAttribute("aria-current", i === chosen);
    tr.setAttribute("aria-label", e[LABEL] + ", " + sec(e[TIME]));
    if (hot) mark.setAttribute("aria-label", "lit");
    const name = node("td", e[LABEL], "text name" + (hot ? " lit-name" : "")); name.title = e[OUTPUT];
    tr.append(mark, name, ...[START, TIME, SLACK].map((key) => node("td", e[key].toFixed(3))));
    if (measured) tr.append(node("td", e[CPU] === null ? "" : e[CPU].toFixed(1)),
      node("td", e[RSS] === null ? "" : (e[RSS] / 1048576).toFixed(0)));
    const when = node("td", undefined, "text"); when.setAttribute("aria-hidden", "true");
    when.append(where(e, hot)); tr.append(when);
    return tr;
  }));
  $("more").hidden = shown.length <= limit;
}

const rowOf = (ev) => ev.target.closest("tr[data-i]");
$("rows").addEventListener("click", (ev) => { const tr = rowOf(ev); if (tr) choose(+tr.dataset.i); });
$("rows").addEventListener("keydown", (ev) => { const tr = rowOf(ev); if (!tr) return;
  if (ev.key === "Enter" || ev.key === " ") { ev.preventDefault(); choose(+tr.dataset.i); }
  const next = ev.key === "ArrowDown" ? tr.nextElementSibling : ev.key === "ArrowUp" ? tr.previousElementSibling : null;
  if (next) { ev.preventDefault(); next.focus(); } });
$("search").oninput = filter; $("only").onchange = filter;
$("more").onclick = () => { limit += 1000; rows(); };
if (E.length) details(pathOf.length ? pathOf.reduce((a, b) => E[a][TIME] >= E[b][TIME] ? a : b) : 0);
filter();

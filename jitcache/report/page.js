"use strict";
// What all parts of the page share: the data, how numbers are written, the head.
const R = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const [LABEL, OUTPUT, START, TIME, SLACK, HOT, LANE, RULE, CPU, RSS, NEEDS, MORE] =
  [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];
const E = R.edges, wall = R.wall_s || 1e-3;

function node(tag, text, cls) {
  const n = document.createElement(tag);
  if (text !== undefined) n.textContent = text;
  if (cls) n.className = cls;
  return n;
}
const sec = (s) => s < 10 ? s.toFixed(2) + " s" : s < 120 ? s.toFixed(1) + " s"
  : Math.floor(Math.round(s) / 60) + " min " + String(Math.round(s) % 60).padStart(2, "0") + " s";
const signed = (s) => (s > 0 ? "+" : s < 0 ? "\u2212" : "") + Math.abs(s).toFixed(3);
const percent = (part, all) => (all ? part / all * 100 : 0).toFixed(part >= all / 10 ? 0 : 1) + " %";
const cut = (s, most) => s.length <= most ? s
  : s.slice(0, Math.ceil(most / 2) - 1) + "\u2026" + s.slice(s.length - Math.floor(most / 2));

const redraws = [];  // what to do when the theme or the width changes
const chosenTheme = () => document.documentElement.classList.contains("dark");
function theme(dark) {
  document.documentElement.classList.toggle("dark", dark);
  $("theme").setAttribute("aria-pressed", dark);
  for (const draw of redraws) draw();
}

(function head() {
  const began = R.began ? ", began " + R.began.replace("T", " ").replace("+00:00", " UTC") : "";
  document.title = "Build report: " + sec(R.wall_s);
  $("verdict").textContent = R.verdict;
  $("origin").textContent = R.directory + (R.predicted ? ", predicted" : ", run " + R.run + " of " + R.runs) + began;
  $("a-long").textContent = sec(R.wall_s);
  const f = R.efficiency;
  $("a-long-more").textContent = (R.predicted ? "predicted, " : "") + E.length + " commands, "
    + f.average_jobs.toFixed(1) + " of " + f.jobs + " jobs busy on average";
  $("a-what").textContent = R.advice.blocker;
  $("a-what").classList.toggle("long", R.advice.blocker.length > 24);
  $("a-what-more").textContent = R.advice.because;
  for (const h of R.advice.helps) {
    const li = node("li");
    li.append(node("span", h.what, "wrap"), node("b", sec(h.wall_s)), node("span", "saves " + sec(h.saves_s), "soft"));
    $("a-help").append(li);
  }
  if (!R.advice.helps.length)
    $("a-help").append(node("li", "Nothing that was simulated saves 2 % of the time."));
  for (const [id, name] of [["s-time", "Timeline"], ["s-table", "Commands"],
    ["s-kernels", "Kernels"], ["s-compare", "Comparison"], ["s-inside", "Inside units"], ["s-more", "Bounds and notes"]]) {
    if ((id === "s-kernels" && !R.kernels) || (id === "s-compare" && !R.comparison) || (id === "s-inside" && !R.inside)) continue;
    const link = node("a", name), li = node("li");
    link.href = "#" + id;
    li.append(link);
    $("nav").append(li);
  }
  const wish = matchMedia("(prefers-color-scheme: dark)");
  theme(wish.matches);
  wish.addEventListener("change", () => theme(wish.matches));
  $("theme").onclick = () => theme(!chosenTheme());
  addEventListener("resize", () => { for (const draw of redraws) draw(); });
})();

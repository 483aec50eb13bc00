// Two builds side by side, and what bounds this one.
(function compared() {
  const C = R.comparison;
  if (!C) return;
  $("s-compare").hidden = false;
  const ratio = C.wall_before_s ? " (" + signed((C.wall_after_s / C.wall_before_s - 1) * 100).replace(/\.(\d).*/, ".$1") + " %)" : "";
  $("c-head").textContent = "Wall " + sec(C.wall_before_s) + " \u2192 " + sec(C.wall_after_s) + ratio
    + ", critical path " + sec(C.path_before_s) + " \u2192 " + sec(C.path_after_s);
  $("c-parts").textContent = C.explanation[0].toUpperCase() + C.explanation.slice(1) + ".";
  const span = Math.max(C.wall_before_s, C.wall_after_s, 1e-3);
  for (const [name, bars] of [["before", C.before], ["after", C.after]]) {
    const rows = bars.reduce((n, b) => Math.max(n, b[3] + 1), 1), h = Math.max(2, Math.min(18, Math.floor(160 / rows)));
    const strip = node("div", undefined, "strip");
    strip.style.height = rows * h + 2 + "px";
    strip.append(...bars.map(([label, start, time, lane, kind]) => {
      const bar = node("i", h >= 14 && time > span / 20 ? label : "", "k" + kind), style = bar.style;
      style.left = start / span * 100 + "%"; style.width = "calc(" + time / span * 100 + "% - 1px)";
      style.top = lane * h + "px"; style.height = h - 1 + "px"; style.lineHeight = h - 1 + "px";
      if (!bar.textContent) style.padding = "0";
      bar.title = label + ": " + sec(time);
      return bar;
    }));
    $("c-both").append(node("span", name, "soft"), strip);
  }
  $("c-both").setAttribute("aria-label", "Both builds' timelines on one scale: " + C.before.length + " commands in "
    + sec(C.wall_before_s) + " before, " + C.after.length + " in " + sec(C.wall_after_s) + " after. The table below tells the changes.");
  const num = (v, none) => v === null ? none : v.toFixed(3), list = C.changes.slice(0, 2000);
  const most = Math.max(1e-9, ...list.map((c) => Math.abs(c.effect ? c.effect.wall_s : 0)));
  const toned = (v) => node("td", v === null ? "" : signed(v), v === null ? "" : v < -5e-4 ? "better" : v > 5e-4 ? "worse" : "");
  $("c-rows").append(...list.map((c) => {
    const tr = node("tr"), box = node("span", undefined, "effect"), bar = node("i"), name = node("td", c.label, "text name");
    const w = c.effect ? c.effect.wall_s / most * 50 : 0;
    name.title = c.output;
    bar.className = w < 0 ? "less" : ""; bar.style.width = Math.abs(w) + "%"; bar.style.left = (w < 0 ? 50 + w : 50) + "%";
    box.append(bar);
    const drawn = node("td"); drawn.setAttribute("aria-hidden", "true"); drawn.append(box);
    const mark = node("td", c.on_critical_path ? "*" : "", "lit");
    if (c.on_critical_path) mark.setAttribute("aria-label", "on the critical path");
    tr.append(mark, name, node("td", num(c.before_s, "new")), node("td", num(c.after_s, "gone")), node("td", signed(c.delta_s)),
      toned(c.effect ? c.effect.wall_s : null), toned(c.effect ? c.effect.path_s : null), drawn);
    return tr;
  }));
})();

(function bounds() {
  const f = R.efficiency, b = R.bounds, sims = Object.entries(b.simulated_s), notes = R.notes.map((n) => "Note: " + n);
  for (const [k, v] of [["wall time", sec(R.wall_s)],
    [R.guessed ? "critical path (estimated)" : "critical path", sec(R.critical_path_s)],
    ["all work", sec(f.busy_s)], ["commands at once", f.average_jobs.toFixed(1) + " of " + f.jobs],
    ["jobs in use", (f.efficiency * 100).toFixed(0) + " %"], ["one command alone", sec(f.alone_s)],
    ["no less than", sec(b.lower_bound_s)]]) {
    const d = node("div"); d.append(node("dt", k), node("dd", v)); $("facts").append(d);
  }
  for (const s of R.savings) notes.unshift("Without " + s.label + " the build would take " + sec(s.without_s)
    + ", with it twice as fast " + sec(s.half_s) + ".");
  const longest = Math.max(1e-9, ...sims.map(([, s]) => s));
  $("s-jobs").hidden = !sims.length;
  $("sims").append(...sims.map(([n, s]) => {
    const tr = node("tr"), drawn = node("td", undefined, "text"), bar = node("i", undefined, +n === f.jobs ? "lit" : "");
    bar.style.width = s / longest * 100 + "%"; drawn.setAttribute("aria-hidden", "true"); drawn.append(bar);
    tr.append(node("td", n + (+n === f.jobs ? " (this build)" : "")), node("td", s.toFixed(1)), drawn);
    return tr;
  }));
  for (const [why, n] of Object.entries(R.skipped_lines)) notes.push(n + " lines of the log skipped: " + why);
  if (R.unfinished) notes.push(R.unfinished + " commands of build.ninja never finished in any logged run.");
  $("notes").append(...notes.map((n) => node("li", n)));
})();

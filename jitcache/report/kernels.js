// What each unit is in kernel terms, which rows need it, and what pruning left out.
(function inKernelTerms() {
  const K = R.kernels;
  if (!K) return;
  $("s-kernels").hidden = false;
  $("k-bound").textContent = K.bound && K.bound[0].toUpperCase() + K.bound.slice(1) + ".";
  $("k-heading").textContent = K.heading;
  const side = (i) => K.align[i] === "r" ? "" : "text";
  $("k-head").append(...K.columns.map((name, i) => {
    const th = node("th", name, side(i)); th.scope = "col"; return th;
  }));
  $("k-rows").append(...K.rows.slice(0, 2000).map((row) => {
    const tr = node("tr");
    tr.append(...row.map((cell, i) => node("td", cell, side(i))));
    return tr;
  }));
  $("k-saved").textContent = K.saved && K.saved[0].toUpperCase() + K.saved.slice(1) + ".";
  $("k-left").append(...K.left_out.map((line) => node("li", line)));
})();

/* The explorer of training examples, used by the book and by `soi report`.

   Its data come from explorer.py. Files that are not embedded in the page are loaded on demand from the folder of this
   script, on disk or on a server. Texts enter the page only as text nodes, so markup in them is never interpreted. */
(() => {
  "use strict";
  const look = window.soiLook;
  if (!look) return;
  const base = document.currentScript.src || location.href;
  const SHORT = 240; // maximum number of characters of a text in the tooltip
  const MARKS = { symbols: ["x", "circle", "circle", "square", "triangle-up", "diamond"], signs: "✖●●■▲◆" };
  const PICTURES = ".tag_look-pictures"; // static pictures that replace the explorers in print
  const INK = "#202124";
  const FONT = { family: "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif", size: 13, color: INK };
  const coarse = matchMedia("(pointer: coarse)").matches;
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const format = (n) => n.toLocaleString("en");
  const percent = (share) => (share > 0 && share < 0.005 ? "<1 %" : `${Math.round(share * 100)} %`);

  const loading = {};
  function load(file) {
    loading[file] ??= new Promise((done, failed) => {
      const script = document.createElement("script");
      script.src = new URL(`${file}?${look.version}`, base);
      script.onload = done;
      script.onerror = () => failed(new Error(`${file} could not be loaded`));
      document.head.append(script);
    });
    return loading[file];
  }

  /* Create an element with attributes, listeners (attributes that are functions) and children. */
  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (typeof value === "function") element.addEventListener(name, value);
      else if (value !== null) element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  }

  const cut = (text, most) => (text.length <= most ? text : `${text.slice(0, most - 1)}…`);

  class Explorer {
    constructor(place) {
      this.place = place;
      this.comparison = place.dataset.comparison;
      const { members, note } = look.comparisons[this.comparison];
      this.note = note;
      this.from = new Set();
      this.to = new Set();
      this.words = "";
      this.members = make("div", { class: "look-members", role: "group", "aria-label": "Dataset" });
      for (const name of members) {
        const choose = () => this.open(name);
        this.members.append(make("button", { type: "button", "data-member": name, click: choose }, name));
      }
      this.runs = make("div", { class: "look-runs" });
      this.filters = make("div", { class: "look-filters" });
      this.count = make("output", { "aria-live": "polite" });
      const search = (event) => { this.words = event.target.value.trim().toLowerCase(); this.refresh(); };
      this.search = make("input", { type: "search", placeholder: "search texts", "aria-label": "Search texts", input: search });
      const all = make("button", { type: "button", class: "look-all", click: () => this.clear() }, "show all");
      this.status = make("div", { class: "look-status" }, this.count, all, this.search);
      this.sides = make("div", { class: "look-sides", role: "group", "aria-label": "Run shown on the map" });
      this.map = make("div", { class: "look-plot", role: "group" });
      this.ring = make("div", { class: "look-ring", hidden: "" });
      this.mapText = make("figcaption");
      this.position = make("span");
      this.text = make("div", { class: "look-words", "aria-live": "polite" });
      const steps = [["Previous example", "‹", -1], ["Next example", "›", 1]].map(([label, sign, by]) =>
        make("button", { type: "button", "aria-label": label, click: () => this.step(by) }, sign));
      this.card = make("section", { class: "look-card", "aria-label": "One example" },
        make("div", { class: "look-steps" }, steps[0], this.position, steps[1]), this.text);
      this.tip = make("div", { class: "look-tip", "aria-hidden": "true", hidden: "" });
      addEventListener("scroll", () => { this.tip.hidden = true; }, { passive: true, capture: true });
      document.body.append(this.tip); // inside the explorer, `fixed` would not refer to the window
      this.flow = make("div", { class: "look-plot", role: "group" });
      this.flowText = make("figcaption");
      this.place.append(
        make("div", { class: "look-bar" }, this.members, this.runs), this.filters, this.status,
        make("div", { class: "look-main" },
          make("figure", { class: "look-map" }, this.sides, make("div", { class: "look-paper" }, this.map, this.ring), this.mapText), this.card),
        make("figure", { class: "look-flow" }, this.flow, this.flowText));
      if (document.querySelector(PICTURES)) this.place.append(this.pictures());
      this.open(members[0]);
    }

    /* Create the button that shows the static pictures of the page. */
    pictures() {
      const root = document.documentElement;
      const flip = (event) => {
        root.classList.toggle("soi-look-pictures");
        event.target.scrollIntoView({ block: "center" }); // pictures may have appeared above it
        for (const button of document.querySelectorAll(".look-pictures")) {
          button.setAttribute("aria-pressed", root.classList.contains("soi-look-pictures"));
        }
      };
      return make("button", { type: "button", class: "look-pictures", "aria-pressed": "false", click: flip }, "show as static pictures");
    }

    async open(member) {
      const name = `${this.comparison}-${member}`;
      this.wanted = member;
      for (const button of this.members.children) button.setAttribute("aria-pressed", button.dataset.member === member);
      try {
        await Promise.all([window.Plotly || load("plotly.min.js"), look.data[name] || load(`${name}.js`)]);
      } catch (error) {
        this.count.textContent = error.message;
        return;
      }
      if (this.wanted !== member) return; // another dataset was chosen in the meantime
      this.data = look.data[name];
      this.found = this.data.text.map((text, i) => `${text}\n${this.data.pair ? this.data.pair[i] : ""}`.toLowerCase());
      this.place.classList.toggle("look-single", this.data.runs.length < 2); // nothing to compare
      [this.a, this.b, this.side, this.pinned] = [this.data.first, this.data.second, 0, null];
      this.runs.replaceChildren(
        make("span", {}, "Compare "), this.runChoice("a", "First run"), make("span", {}, " with "), this.runChoice("b", "Second run"));
      this.reopen();
    }

    runChoice(which, label) {
      const change = (event) => { this[which] = +event.target.value; this.reopen(); };
      const select = make("select", { "aria-label": label, change });
      this.data.runs.forEach((run, i) => select.append(make("option", { value: i }, run.name)));
      select.value = this[which];
      return select;
    }

    /* After a choice of runs: reset the filters, update their counts, and show all examples. */
    reopen() {
      this.from.clear();
      this.to.clear();
      const rows = [[this.a, this.from], [this.b, this.to]];
      this.filters.replaceChildren(...rows.map(([at, set], k) => this.filterRow(at, set, k)));
      this.sides.replaceChildren(make("span", {}, "Map of "), ...[this.a, this.b].map((at, k) =>
        make("button", { type: "button", "data-side": k, click: () => this.turn(k) }, this.run(at).name)));
      this.refresh();
    }

    filterRow(at, set, k) {
      const row = make("div", { role: "group", "aria-label": `Categories: ${this.run(at).name}`, "data-row": k },
        make("span", { class: "look-name" }, this.run(at).name));
      const counts = new Array(6).fill(0);
      for (const code of this.run(at).soi) counts[code] += 1;
      for (const code of look.order) {
        const toggle = () => { set.has(code) ? set.delete(code) : set.add(code); this.refresh(); };
        row.append(make("button",
          { type: "button", class: "look-chip", "data-soi": code, title: look.descriptions[code], click: toggle,
            disabled: counts[code] ? null : "" },
          this.sign(code), `${look.labels[code]} `, make("b", {}, format(counts[code]))));
      }
      return row;
    }

    sign(code) {
      return make("i", { class: "look-sign", style: `color:${look.colors[code]}`, "aria-hidden": "true" }, MARKS.signs[code]);
    }

    run(at) { return this.data.runs[at]; }
    get here() { return this.run(this.side ? this.b : this.a); }

    clear() {
      this.from.clear();
      this.to.clear();
      this.search.value = this.words = "";
      this.refresh();
    }

    turn(side) {
      if (this.side === side) return;
      this.side = side;
      this.refresh(true);
    }

    /* Update everything that depends on the filters. */
    refresh(moving = false) {
      const [a, b] = [this.run(this.a), this.run(this.b)];
      const shown = [];
      for (let i = 0; i < this.data.text.length; i++) {
        if ((!this.from.size || this.from.has(+a.soi[i])) && (!this.to.size || this.to.has(+b.soi[i]))
            && (!this.words || this.found[i].includes(this.words))) shown.push(i);
      }
      const { confidence, soi } = this.here;
      this.shown = shown.sort((i, j) => confidence[i] - confidence[j] || i - j);
      const rank = (i) => look.order.indexOf(+soi[i]);
      this.drawn = [...shown].sort((i, j) => rank(i) - rank(j) || i - j); // draw harder, rarer categories on top
      this.count.textContent = `${format(shown.length)} of ${format(this.data.text.length)} examples shown`;
      this.place.classList.toggle("look-filtered", Boolean(this.from.size || this.to.size || this.words));
      for (const chip of this.filters.querySelectorAll(".look-chip")) {
        const set = +chip.parentElement.dataset.row ? this.to : this.from;
        chip.setAttribute("aria-pressed", set.has(+chip.dataset.soi));
      }
      for (const button of this.sides.querySelectorAll("button")) {
        button.setAttribute("aria-pressed", +button.dataset.side === this.side);
      }
      if (!this.shown.includes(this.pinned)) this.pinned = this.shown[0] ?? null;
      this.tip.hidden = true;
      this.drawMap(moving);
      this.drawCard();
      if (this.data.runs.length > 1) this.drawFlow();
      else this.place.classList.remove("look-ahead");
    }

    /* Return the positions of examples on the map of the run shown. */
    points(examples) {
      const { confidence, variability } = this.here;
      return { x: examples.map((i) => variability[i] / 1000), y: examples.map((i) => confidence[i] / 1000) };
    }

    async drawMap(moving) {
      const round = this.round = {};
      const { soi } = this.here;
      const [color, symbol] = [look.colors, MARKS.symbols].map((looks) => this.drawn.map((i) => looks[soi[i]]));
      const top = Math.max(300, ...[this.a, this.b].flatMap((at) => this.run(at).variability)) / 1000;
      const traces = [
        { type: "scatter", mode: "markers", ...this.points(this.drawn), customdata: this.drawn, hoverinfo: "none", showlegend: false,
          marker: { color, symbol, size: 8, opacity: 0.85, line: { width: 0.6, color: "rgba(32,33,36,.55)" } } },
      ];
      const grid = { zeroline: false, gridcolor: "#e3e5e8", linecolor: "#9aa0a6", fixedrange: coarse };
      const words = { showarrow: false, font: { size: 11, color: "#5f6368" }, xref: "paper", yref: "paper", bgcolor: "rgba(255,255,255,.7)" };
      const layout = {
        xaxis: { ...grid, title: { text: "variability of p(gold)", standoff: 8 }, range: [-0.012, top * 1.06] },
        yaxis: { ...grid, title: { text: "confidence, mean p(gold)", standoff: 8 }, range: [-0.03, 1.03] },
        annotations: [
          { ...words, text: "<i>easy to learn<\/i>", x: 0.6, y: 0.99 }, { ...words, text: "<i>hard to learn<\/i>", x: 0.6, y: 0.01 },
          { ...words, text: "<i>ambiguous<\/i>", x: 0.99, y: 0.5, textangle: -90 },
        ],
        margin: { l: 52, r: 8, t: 8, b: 44 }, height: this.place.clientWidth < 560 ? 330 : 440, hovermode: "closest", hoverdistance: 12,
        dragmode: coarse ? false : "zoom", font: FONT, paper_bgcolor: "#fff", plot_bgcolor: "#fff", uirevision: `${this.data.member}`,
      };
      const first = !this.map.data;
      this.ring.hidden = true;
      if (moving && !first && !still) await this.walk();
      if (this.round !== round) return; // a newer drawing was requested in the meantime
      await Plotly.react(this.map, traces, layout, {
        responsive: true, displaylogo: false, displayModeBar: coarse ? false : "hover",
        modeBarButtons: [["toImage"], ["zoomIn2d", "zoomOut2d", "resetScale2d"]],
      });
      const n = this.data.text.length;
      const part = this.data.of > n ? ` A random sample of ${format(n)} of ${format(this.data.of)} examples.` : "";
      this.mapText.textContent = `Data map of ${this.data.member}, ${this.here.name}: one mark per training example. `
        + `Point at a mark to read the example, click to keep it in view.${part} ${this.note}.`;
      this.map.setAttribute("aria-label", `${this.mapText.textContent} ${this.count.textContent}.`);
      this.settled = round;
      this.circle();
      if (first) {
        this.map.on("plotly_afterplot", () => { if (this.round === this.settled) this.circle(); }); // after zooming or resizing
        this.map.on("plotly_hover", (event) => this.showTip(event));
        this.map.on("plotly_unhover", () => { this.tip.hidden = true; });
        this.map.addEventListener("pointerleave", () => { this.tip.hidden = true; });
        this.map.on("plotly_click", (event) => this.pin(event.points[0].customdata));
      }
    }

    /* Animate the marks to their positions in the other run. */
    walk() {
      const data = [this.points(this.map.data[0].customdata)];
      const pace = { duration: 700, easing: "cubic-in-out" };
      const options = { transition: pace, frame: { duration: 700, redraw: false }, mode: "immediate" };
      return Plotly.animate(this.map, { data, traces: [0] }, options).catch(() => null); // interrupted by another animation
    }

    /* Place the ring around the example on the card; it is a separate element, so stepping redraws nothing. */
    circle() {
      const { xaxis, yaxis, _size: size } = this.map._fullLayout;
      const i = this.pinned;
      this.ring.hidden = i === null;
      if (i === null) return;
      const { x: [right], y: [up] } = this.points([i]);
      const [x, y] = [xaxis.d2p(right), yaxis.d2p(up)];
      this.ring.hidden = x < 0 || y < 0 || x > size.w || y > size.h; // outside the zoomed area
      this.ring.style.left = `${size.l + x}px`;
      this.ring.style.top = `${size.t + y}px`;
    }

    pin(i) {
      if (i === undefined || i === null) return;
      this.pinned = i;
      this.circle();
      this.drawCard();
    }

    showTip({ points, event }) {
      const i = points[0].customdata;
      if (coarse || i === undefined || !this.map.matches(":hover")) return; // plotly's event is late: the pointer may have left
      this.tip.replaceChildren(...this.describe(i, SHORT));
      this.tip.hidden = false;
      const [width, height] = [this.tip.offsetWidth, this.tip.offsetHeight];
      const left = event.clientX + 14 + width > innerWidth - 8 ? event.clientX - 14 - width : event.clientX + 14;
      const top = event.clientY + 14 + height > innerHeight - 8 ? event.clientY - 14 - height : event.clientY + 14;
      this.tip.style.left = `${Math.max(8, left)}px`;
      this.tip.style.top = `${Math.max(8, top)}px`;
    }

    /* Describe example i: its texts, gold label, and its history and category in both runs. */
    describe(i, most) {
      const { text, pair, gold, labels } = this.data;
      const quotes = [text[i], ...(pair ? [pair[i]] : [])];
      const parts = quotes.map((quote) => make("blockquote", { dir: "auto" }, cut(quote, most)));
      parts.push(make("p", { class: "look-gold" }, "gold label ", make("b", {}, labels[gold[i]])));
      for (const at of new Set([this.a, this.b])) parts.push(this.track(at, i));
      return parts;
    }

    track(at, i) {
      const run = this.run(at);
      const code = +run.soi[i];
      const history = run.history.slice(i * run.epochs, (i + 1) * run.epochs);
      const squares = make("span", { class: "look-history", role: "img", style: `--soi:${look.colors[code]}`,
        "aria-label": `correct in ${[...history].filter((c) => c === "1").length} of ${run.epochs} epochs`,
        "data-history": [...history].map((c) => (c === "1" ? "■" : "□")).join("") });
      for (const c of history) squares.append(make("i", { class: c === "1" ? "on" : "" }));
      const values = `confidence ${(run.confidence[i] / 1000).toFixed(2)}, variability ${(run.variability[i] / 1000).toFixed(2)}`;
      return make("div", { class: "look-track" }, make("span", { class: "look-name" }, run.name), squares,
        make("span", { class: "look-soi", title: look.descriptions[code] }, this.sign(code), look.labels[code]),
        make("small", {}, values));
    }

    drawCard() {
      const at = this.shown.indexOf(this.pinned);
      this.card.classList.toggle("look-empty", at < 0);
      this.position.textContent = at < 0 ? "" : `${format(at + 1)} of ${format(this.shown.length)}, hardest first`;
      this.text.replaceChildren(...(at < 0 ? [make("p", {}, "No examples match these filters.")] : this.describe(this.pinned, Infinity)));
    }

    step(by) {
      const n = this.shown.length;
      if (n) this.pin(this.shown[(this.shown.indexOf(this.pinned) + by + n) % n]);
    }

    async drawFlow() {
      const [a, b] = [this.run(this.a), this.run(this.b)];
      const counts = look.order.map(() => new Array(6).fill(0)); // moves from category i to category j: counts[i][j]
      [...a.soi].forEach((code, i) => { counts[look.order.indexOf(+code)][look.order.indexOf(+b.soi[i])] += 1; });
      const total = this.data.text.length;
      const colors = look.order.map((code) => look.colors[code]);
      const links = [];
      counts.forEach((row, i) => row.forEach((value, j) => { if (value) links.push({ i, j, value }); }));
      const lit = ({ i, j }) => (!this.from.size || this.from.has(look.order[i])) && (!this.to.size || this.to.has(look.order[j]));
      const faded = (color, alpha) => `rgba(${[1, 3, 5].map((k) => parseInt(color.slice(k, k + 2), 16)).join(",")},${alpha})`;
      const sums = [counts.map((row) => row.reduce((s, v) => s + v, 0)), look.order.map((_, j) => counts.reduce((s, row) => s + row[j], 0))];
      // Empty bars are left out: plotly drops them and would assign their positions to other bars.
      const bars = [0, 1].flatMap((side) => look.order.map((_, k) => ({ side, k, sum: sums[side][k] }))).filter(({ sum }) => sum);
      const bar = (side, k) => bars.findIndex((other) => other.side === side && other.k === k);
      const label = ({ k, sum }) => `${look.labels[look.order[k]]}  ${percent(sum / total)}`;
      const places = [0, 1].flatMap((side) => middles(bars.filter((other) => other.side === side).map(({ sum }) => sum)));
      const trace = {
        type: "sankey", arrangement: "fixed",
        node: {
          label: bars.map(label), color: bars.map(({ k }) => colors[k]), customdata: bars.map(({ side, k }) => [side, look.order[k]]),
          pad: 16, thickness: 16, line: { width: 0.5, color: INK }, hovertemplate: "%{value:,} examples<extra><\/extra>",
          x: bars.map(({ side }) => (side ? 0.999 : 0.001)), y: places,
        },
        link: {
          source: links.map(({ i }) => bar(0, i)), target: links.map(({ j }) => bar(1, j)), value: links.map(({ value }) => value),
          customdata: links.map(({ i, j }) => [look.order[i], look.order[j]]),
          color: links.map((link) => faded(colors[link.i], lit(link) ? (link.i === link.j ? 0.35 : 0.65) : 0.07)),
          hovertemplate: "%{source.label} to %{target.label}: %{value:,} examples<extra><\/extra>",
        },
      };
      const head = { showarrow: false, xref: "paper", yref: "paper", y: 1.01, yanchor: "bottom" };
      const layout = {
        annotations: [{ ...head, text: `<b>${a.name}<\/b>`, x: 0, xanchor: "left" }, { ...head, text: `<b>${b.name}<\/b>`, x: 1, xanchor: "right" }],
        margin: { l: 6, r: 6, t: 28, b: 12 }, height: 420, font: FONT, paper_bgcolor: "#fff",
      };
      const first = !this.flow.data;
      await Plotly.react(this.flow, [trace], layout, { responsive: true, displayModeBar: false });
      this.place.classList.remove("look-ahead");
      const stay = counts.reduce((s, row, k) => s + row[k], 0);
      const part = (test) => percent(links.filter(test).reduce((s, { value }) => s + value, 0) / total);
      this.flowText.textContent = `Flow of the ${format(total)} examples of ${this.data.member} from their category in "${a.name}" (left) `
        + `to their category in "${b.name}" (right): ${percent(stay / total)} stay, ${part(({ i, j }) => j < i)} become easier, `
        + `${part(({ i, j }) => j > i)} harder. Click a band or a bar to show its examples on the map. ${this.note}.`;
      this.flow.setAttribute("aria-label", this.flowText.textContent);
      if (first) this.flow.on("plotly_click", (event) => this.follow(event.points[0]));
    }

    /* Show the examples of the clicked band or bar; a second click shows all again. */
    follow({ source, customdata: [one, other] }) {
      const from = source ? [one] : one === 0 ? [other] : [];
      const to = source || one === 1 ? [other] : [];
      const same = (set, codes) => set.size === codes.length && codes.every((code) => set.has(code));
      const again = same(this.from, from) && same(this.to, to);
      this.from.clear();
      this.to.clear();
      if (!again) {
        from.forEach((code) => this.from.add(code));
        to.forEach((code) => this.to.add(code));
      }
      this.refresh();
    }
  }

  /* Return the centres of stacked bars from top to bottom; plotly does not accept 0 and 1. */
  function middles(sums) {
    const total = sums.reduce((s, v) => s + v, 0);
    const heights = sums.map((v) => Math.max(v / total, 0.05));
    const all = heights.reduce((s, v) => s + v, 0);
    let y = 0;
    return heights.map((h) => { y += h / all; return Math.min(0.999, Math.max(0.001, y - h / all / 2)); });
  }

  function begin() {
    document.documentElement.classList.add("soi-look-on");
    const near = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        near.unobserve(entry.target);
        entry.target.explorer = new Explorer(entry.target);
      }
    }, { rootMargin: "300px" });
    for (const place of document.querySelectorAll(".soi-look")) {
      if (!look.comparisons[place.dataset.comparison]) continue;
      place.replaceChildren();
      place.classList.add("look-ahead"); // reserves about the final height, so that links into the page hold
      near.observe(place);
    }
    stay();
  }

  /* Keep the target of a link in view while the explorers above it load, until the reader scrolls. */
  function stay() {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    const hold = new ResizeObserver(() => target.scrollIntoView({ behavior: "instant" }));
    hold.observe(document.body);
    for (const moved of ["wheel", "touchstart", "pointerdown", "keydown"]) {
      addEventListener(moved, () => hold.disconnect(), { once: true, passive: true });
    }
  }
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin);
  else begin();
})();

"use strict";
(() => {
  const PAGE = 50;
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  if (!data.rows.length) return;

  const GLYPHS = { current: "✓", stale: "↓", missing: "–", unreadable: "?" };
  const STATES = { current: "up to date", stale: "behind", missing: "lacks the row", unreadable: "not read" };
  const MARKS = { a: "newest", b: "older", t: "same time, differs" };
  const chosen = { kinds: new Set(), query: "", table: "", replica: "", page: 0 };
  let open = data.rows[0].n;
  let shown = data.rows;

  const make = (tag, attributes, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };

  const moment = (us) => {
    if (us === null) return "–";
    const number = BigInt(us);
    const micros = ((number % 1000000n) + 1000000n) % 1000000n;
    const date = new Date(Number((number - micros) / 1000n));
    if (Number.isNaN(date.getTime()) || date.getUTCFullYear() > 9999) return `${us} us`;
    return `${date.toISOString().slice(0, 19).replace("T", " ")}.${String(micros).padStart(6, "0")}`;
  };

  const thousands = (number) => number.toLocaleString("en-US");

  for (const row of data.rows) {
    const names = row.r.map(([replica, state]) => `${data.replicas[replica]} ${STATES[data.states[state]]}`);
    const columns = row.c.map((column) => data.columns[column]);
    const kinds = [row.k, ...row.f].map((kind) => data.kinds[kind].label);
    row.text = [...kinds, data.tables[row.t], row.o, row.y || "", ...columns, ...names].join("\n").toLowerCase();
  }

  const differs = (row, replica) => {
    const behind = row.r.filter(([, state]) => ["stale", "missing"].includes(data.states[state]));
    return (behind.length ? behind : row.r).some(([place]) => place === replica);
  };

  const matches = (row) =>
    (!chosen.kinds.size || chosen.kinds.has(row.k)) &&
    (chosen.table === "" || row.t === Number(chosen.table)) &&
    (chosen.replica === "" || differs(row, Number(chosen.replica))) &&
    chosen.query.split(/\s+/).every((word) => row.text.includes(word));

  const glyphs = (row) => {
    const words = row.r.map(([replica, state]) => `${data.replicas[replica]} ${STATES[data.states[state]]}`).join(", ");
    const marks = row.r.map(([, state]) => make("i", { class: `glyph ${data.states[state]}` }, GLYPHS[data.states[state]]));
    return make("span", { class: "glyphs", role: "img", "aria-label": words, title: words }, ...marks);
  };

  const cell = (replica, column) => {
    const [, state, cells] = replica;
    const word = data.states[state];
    if (word === "missing" || word === "unreadable") {
      return make("td", { class: `none ${word}` }, word === "missing" ? "no row" : "not read");
    }
    const found = cells.find(([place]) => place === column);
    if (!found) return make("td", {}, "–");
    const [, newest, count, mark] = found;
    const td = make("td", { class: mark }, newest === null ? "null" : moment(newest));
    if (count > 1) td.append(` (${count} cells)`);
    if (mark) td.append(make("small", {}, MARKS[mark]));
    return td;
  };

  const detail = (row) => {
    const columns = [...new Set([...row.c, ...row.r.flatMap(([, , cells]) => cells.map(([column]) => column))])];
    const head = row.r.map(([replica, state]) =>
      make("th", { scope: "col" }, make("bdi", {}, data.replicas[replica]),
        make("small", { class: data.states[state] }, STATES[data.states[state]])));
    const body = columns.map((column) =>
      make("tr", {}, make("th", { scope: "row" }, make("bdi", {}, data.columns[column])),
        ...row.r.map((replica) => cell(replica, column))));
    const corner = make("th", { scope: "col" }, "column", make("small", {}, "written (UTC)"));
    const table = make("table", { class: "cells" },
      make("thead", {}, make("tr", {}, corner, ...head)), make("tbody", {}, ...body));
    const kinds = [row.k, ...row.f].map((kind) => data.kinds[kind].sentence).join("; also: ");
    const key = row.y === undefined ? [] : [make("p", {}, "key ", make("code", {}, make("bdi", {}, row.y)))];
    const out = make("div", { class: "detail", id: `detail-${row.n}` },
      make("p", { class: "dim" }, `${kinds}. Token ${row.o}.`), ...key,
      make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `replicas of row ${row.n}` }, table));
    if (data.file) out.append(make("pre", { tabindex: "0" }, make("code", {}, `consistency explain ${data.file} --row ${row.n}`)));
    return out;
  };

  const item = (row) => {
    const expanded = row.n === open;
    const button = make("button", { type: "button", class: "row", "aria-expanded": String(expanded) },
      make("span", { class: "n" }, `#${thousands(row.n)}`),
      make("span", { class: "kind" }, data.kinds[row.k].label),
      make("bdi", { class: "table" }, data.tables[row.t]),
      make("bdi", { class: "key" }, row.y === undefined ? `token ${row.o}` : row.y),
      make("span", { class: "time", title: "newest write (UTC)" }, row.w === null ? "" : moment(row.w).slice(0, 19)),
      glyphs(row), make("span", { class: "caret", "aria-hidden": "true" }));
    const li = make("li", {}, button);
    const expand = () => { button.setAttribute("aria-controls", `detail-${row.n}`); li.append(detail(row)); };
    if (expanded) expand();
    button.addEventListener("click", () => {
      const was = button.getAttribute("aria-expanded") === "true";
      for (const other of document.querySelectorAll(".row[aria-expanded='true']")) {
        other.setAttribute("aria-expanded", "false");
        other.removeAttribute("aria-controls");
        other.nextElementSibling.remove();
      }
      open = was ? 0 : row.n;
      if (!was) { button.setAttribute("aria-expanded", "true"); expand(); }
    });
    return li;
  };

  const draw = () => {
    const pages = Math.max(1, Math.ceil(shown.length / PAGE));
    chosen.page = Math.min(chosen.page, pages - 1);
    const first = chosen.page * PAGE;
    byId("rows").replaceChildren(...shown.slice(first, first + PAGE).map(item));
    byId("pager").hidden = pages === 1;
    byId("page").textContent = `page ${thousands(chosen.page + 1)} of ${thousands(pages)}`;
    byId("previous").disabled = chosen.page === 0;
    byId("next").disabled = chosen.page === pages - 1;
    const held = data.total > data.rows.length
      ? ` This page holds ${thousands(data.rows.length)} of ${thousands(data.total)} findings${data.file ? `; all are in ${data.file}` : ""}.` : "";
    byId("count").textContent = shown.length === data.rows.length
      ? `${thousands(shown.length)} row${shown.length === 1 ? "" : "s"}.${held}`
      : `${thousands(shown.length)} of ${thousands(data.rows.length)} rows match.${held}`;
  };

  const filter = () => {
    shown = data.rows.filter(matches);
    chosen.page = 0;
    draw();
  };

  const turn = (by) => {
    chosen.page += by;
    open = 0;
    draw();
    byId("findings").scrollIntoView({ block: "start" });
    const buttons = document.querySelectorAll("#rows .row");
    if (buttons.length) buttons[0].focus({ preventScroll: true });
  };

  const counts = new Map();
  for (const row of data.rows) counts.set(row.k, (counts.get(row.k) || 0) + 1);
  for (const [kind, count] of [...counts].sort((a, b) => b[1] - a[1])) {
    const chip = make("button", { type: "button", "aria-pressed": "false", title: data.kinds[kind].sentence },
      `${data.kinds[kind].label} ${thousands(count)}`);
    chip.addEventListener("click", () => {
      const on = chip.getAttribute("aria-pressed") !== "true";
      chip.setAttribute("aria-pressed", String(on));
      if (on) chosen.kinds.add(kind); else chosen.kinds.delete(kind);
      filter();
    });
    byId("kinds").append(chip);
  }
  data.tables.forEach((name, place) => byId("table").append(make("option", { value: place }, name)));
  data.replicas.forEach((name, place) => byId("replica").append(make("option", { value: place }, `differs on ${name}`)));
  byId("table").hidden = data.tables.length < 2;

  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("query").addEventListener("input", (event) => { chosen.query = event.target.value.trim().toLowerCase(); filter(); });
  byId("table").addEventListener("change", (event) => { chosen.table = event.target.value; filter(); });
  byId("replica").addEventListener("change", (event) => { chosen.replica = event.target.value; filter(); });
  byId("previous").addEventListener("click", () => turn(-1));
  byId("next").addEventListener("click", () => turn(1));
  byId("rows").addEventListener("keydown", (event) => {
    if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
    const buttons = [...document.querySelectorAll("#rows .row")];
    const at = buttons.indexOf(document.activeElement);
    const next = buttons[at + (event.key === "ArrowDown" ? 1 : -1)];
    if (at >= 0 && next) { event.preventDefault(); next.focus(); }
  });
  document.addEventListener("keydown", (event) => {
    const typing = event.target instanceof Element && event.target.closest("input, select, textarea");
    if (event.key === "/" && !typing) { event.preventDefault(); byId("query").focus(); }
  });

  byId("filters").hidden = false;
  draw();
})();

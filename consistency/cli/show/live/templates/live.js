"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const pulse = byId("pulse");
  const RETRY_MS = 15000;
  let since = document.body.dataset.version;
  let source = null;
  let again = 0;

  const say = (text, on) => {
    pulse.hidden = false;
    if (pulse.textContent !== text) pulse.textContent = text;
    pulse.classList.toggle("on", on);
  };

  const filter = () => {
    const words = byId("query").value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    const rows = document.querySelectorAll("#tables tbody tr");
    let shown = 0;
    for (const row of rows) {
      row.hidden = !words.every((word) => row.dataset.name.includes(word));
      shown += row.hidden ? 0 : 1;
    }
    byId("count").textContent = words.length ? `${shown.toLocaleString("en")} of ${rows.length.toLocaleString("en")} tables` : "";
  };

  const put = (id, html) => {
    const place = byId(id);
    if (!place) return;
    const open = new Set([...place.querySelectorAll("details[open]")].map((each) => each.id));
    const scrolled = [...place.querySelectorAll(".scroll")].map((each) => each.scrollLeft);
    const focused = place.contains(document.activeElement) ? document.activeElement : null;
    const link = focused && focused.getAttribute("href");
    place.innerHTML = html;
    for (const each of place.querySelectorAll("details")) each.open = open.has(each.id);
    place.querySelectorAll(".scroll").forEach((each, i) => { each.scrollLeft = scrolled[i] || 0; });
    if (link) { const same = [...place.querySelectorAll("a")].find((each) => each.getAttribute("href") === link); if (same) same.focus({ preventScroll: true }); }
    else if (focused) { const region = place.querySelector(".scroll, summary"); if (region) region.focus({ preventScroll: true }); }
    if (id === "tables") filter();
  };

  const stop = () => {
    clearTimeout(again);
    if (source) source.close();
    source = null;
  };

  const listen = () => {
    if (source || document.hidden) return;
    source = new EventSource(`events?since=${encodeURIComponent(since)}`);
    source.onopen = () => say("live", true);
    source.addEventListener("sections", (event) => {
      since = event.lastEventId;
      for (const [id, html] of Object.entries(JSON.parse(event.data))) put(id, html);
    });
    source.onerror = () => {
      say("not connected, trying again", false);
      if (source && source.readyState === EventSource.CLOSED) { stop(); again = setTimeout(listen, RETRY_MS); }
    };
  };

  // A browser has few connections to one server: a page that nobody sees leaves them to others.
  document.addEventListener("visibilitychange", () => { if (document.hidden) { stop(); say("paused", false); } else listen(); });
  addEventListener("pagehide", stop);
  addEventListener("pageshow", listen);
  byId("filters").hidden = false;
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("query").addEventListener("input", filter);
  filter();
  say("connecting", false);
  listen();
})();

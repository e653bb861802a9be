// Keeps a page live: takes sections as the server sends them, says aloud what changed, and says when it is not live.
// Without this script every page is as it was when it was loaded.
"use strict";

(() => {
  const SILENT_MS = 15000;
  const AGAIN_MS = 10000;
  const live = document.getElementById("live");
  const text = document.getElementById("live-text");
  const announce = document.getElementById("announce");
  if (!live) return;
  let source = null;
  let heard = 0;
  let headline = document.querySelector("[data-headline]")?.dataset.headline ?? "";

  // What stands in the page is painted before anything more is asked for.
  const painted = (then) => (document.hidden ? then() : requestAnimationFrame(() => setTimeout(then)));
  const clock = () => new Date().toISOString().slice(11, 19) + "Z";

  function say(state, words) {
    if (live.dataset.state === state && text.textContent === words) return;
    const was = live.dataset.state;
    live.dataset.state = state;
    text.textContent = words;
    if (state === "lost" && was !== "lost") announce.textContent = words;
  }

  // What had the focus gets it back when its section is replaced.
  function focused(within) {
    const active = document.activeElement;
    if (!active || !within.contains(active)) return null;
    const kind = active.tagName.toLowerCase();
    const all = [...within.querySelectorAll(kind)];
    return { kind, href: active.getAttribute("href"), place: all.indexOf(active) };
  }

  function refocus(within, was) {
    if (!was) return;
    const all = [...within.querySelectorAll(was.kind)];
    const same = was.href ? all.find((one) => one.getAttribute("href") === was.href) : null;
    (same ?? all[was.place])?.focus({ preventScroll: true });
  }

  function take(event) {
    heard = Date.now();
    const { id, digest, html } = JSON.parse(event.data);
    const section = document.getElementById(id);
    say("on", `Live. Last change ${clock()}`);
    if (!section || section.dataset.section === digest) return;
    const had = focused(section);
    section.innerHTML = html;
    section.dataset.section = digest;
    refocus(section, had);
    if (id !== "strip") return;
    const tiles = section.querySelector("[data-headline]");
    const stopped = tiles.dataset.stopped;
    document.title = (stopped === "0" ? "" : `(${stopped} stopped) `) + document.body.dataset.title;
    if (tiles.dataset.headline !== headline) announce.textContent = headline = tiles.dataset.headline;
  }

  // Of a table only the rows that are others now come.
  function takeRows(event) {
    heard = Date.now();
    const { id, was, digest, order, rows } = JSON.parse(event.data);
    const section = document.getElementById(id);
    if (!section || section.dataset.section === digest) return;
    if (section.dataset.section !== was) {
      lose("a change was missed");
      return;
    }
    say("on", `Live. Last change ${clock()}`);
    const had = focused(section);
    const body = section.querySelector("tbody");
    const standing = new Map([...body.rows].map((row) => [row.dataset.row, row]));
    for (const [name, html] of Object.entries(rows)) {
      const made = document.createElement("template");
      made.innerHTML = html;
      const row = made.content.firstElementChild;
      standing.get(name)?.replaceWith(row);
      standing.set(name, row);
    }
    if (order) body.replaceChildren(...order.map((name) => standing.get(name)));
    section.dataset.section = digest;
    refocus(section, had);
  }

  function open() {
    if (source) return;
    const query = new URLSearchParams({ page: decodeURIComponent(document.body.dataset.live) });
    const given = new URLSearchParams(location.search);
    for (const name of ["q", "all"]) if (given.get(name)) query.set(name, given.get(name));
    source = new EventSource(`/console/live?${query}`);
    heard = Date.now();
    source.addEventListener("section", take);
    source.addEventListener("rows", takeRows);
    source.addEventListener("beat", () => {
      heard = Date.now();
      if (live.dataset.state !== "on") say("on", `Live since ${clock()}`);
    });
    source.addEventListener("bye", () => lose("the server ended the stream"));
    source.addEventListener("error", () => {
      const over = source?.readyState === EventSource.CLOSED;
      lose(over ? "refused: signed out, or too many pages are open" : "no connection");
    });
  }

  function lose(why) {
    close();
    say("lost", `NOT LIVE since ${clock()}: ${why}. Trying again.`);
    setTimeout(() => { if (!document.hidden) open(); }, AGAIN_MS);
  }

  function close() {
    source?.close();
    source = null;
  }

  setInterval(() => {
    if (source && Date.now() - heard > SILENT_MS) lose("nothing was heard");
  }, 1000);

  // A page that nobody sees costs nothing, and a browser has few connections to one server.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      close();
    } else {
      open();
    }
  });
  window.addEventListener("pagehide", close);
  painted(() => { if (!document.hidden) open(); });

  async function late(place) {
    try {
      const answer = await fetch(place.dataset.late, { credentials: "same-origin" });
      if (answer.ok) place.innerHTML = await answer.text();
    } catch {
      // The link that stands there leads to the same table.
    }
  }
  painted(() => document.querySelectorAll("[data-late]").forEach(late));
})();

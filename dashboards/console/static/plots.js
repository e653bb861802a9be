// Draws the plots with uPlot from what the server sends, and asks again now and then.
"use strict";

(() => {
  // A point of the fleet's stands for a minute or more; a rollout's evidence moves faster.
  const FLEET_AGAIN_MS = 60000;
  const ROLLOUT_AGAIN_MS = 20000;
  const NAMED = { kill: "#D55E00", hold: "#E69F00", control: "#0072B2" };
  const NAMED_DARK = { kill: "#FF8A3D", hold: "#E69F00", control: "#56B4E9" };
  // Okabe and Ito's, in an order in which neighbours differ most.
  const PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C8C8C", "#A08A00"];
  const PALETTE_DARK = ["#56B4E9", "#FF8A3D", "#2FC79A", "#E3A0C4", "#E69F00", "#8CC8F0", "#B5B5B5", "#F0E442"];
  const LIBRARY = document.currentScript.dataset.library;
  const dark = matchMedia("(prefers-color-scheme: dark)");

  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const pad = (part) => String(part).padStart(2, "0");
  const utc = (seconds) => {
    const at = new Date(seconds * 1000);
    return `${pad(at.getUTCHours())}:${pad(at.getUTCMinutes())}`;
  };

  const compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
  // Of a logarithmic axis only the powers of ten get a line.
  const power = (value) => (Number.isInteger(Math.round(Math.log10(value) * 1e6) / 1e6) ? value : null);
  const short = (value) => (value === null ? "" : compact.format(value));

  function options(plot, width) {
    const axis = { stroke: style("--quiet"), grid: { stroke: style("--line"), width: 1 }, ticks: { stroke: style("--line") } };
    const only = plot.log ? { filter: (u, splits) => splits.map(power) } : {};
    const palette = dark.matches ? PALETTE_DARK : PALETTE;
    const named = dark.matches ? NAMED_DARK : NAMED;
    return {
      width,
      height: 210,
      cursor: { drag: { x: false, y: false } },
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
      legend: { show: true, live: false },
      scales: { y: plot.log ? { distr: 3 } : { range: (u, low, high) => [Math.min(0, low ?? 0), Math.max(high ?? 1, 1e-9) * 1.08] } },
      axes: [{ ...axis, values: (u, splits) => splits.map(utc) }, {
        ...axis,
        size: 56,
        values: (u, splits) => splits.map(short),
        grid: { ...axis.grid, ...only },
        ticks: { ...axis.ticks, ...only },
      }],
      series: [
        {},
        ...plot.series.map((one, place) => ({
          label: one.label,
          stroke: named[one.color] ?? palette[place % palette.length],
          width: 2,
          dash: one.dashed ? [7, 6] : undefined,
          points: { show: plot.x.length < 3 },
          spanGaps: false,
        })),
      ],
    };
  }

  class Drawn {
    constructor(figure) {
      this.figure = figure;
      this.canvas = figure.querySelector(".canvas");
      this.sentence = figure.querySelector("[data-sentence]");
      this.unit = figure.querySelector("[data-unit]");
      this.title = figure.querySelector("h3").textContent;
      this.plot = null;
      this.drawn = null;
    }

    async refresh() {
      let answer;
      try {
        answer = await fetch(this.figure.dataset.plot, { credentials: "same-origin" });
      } catch {
        this.tell("The server does not answer; what is drawn is old.");
        return;
      }
      if (!answer.ok) {
        this.tell(`The server refused (${answer.status}); what is drawn is old.`);
        return;
      }
      const found = await answer.json();
      if (found.why) {
        this.tell(found.why);
        return;
      }
      this.plot = found;
      this.unit.textContent = found.unit;
      this.tell(found.sentence);
      this.draw();
    }

    tell(words) {
      this.sentence.textContent = words;
      this.canvas.setAttribute("aria-label", `${this.title}: ${words}`);
    }

    draw() {
      this.drawn?.destroy();
      this.drawn = null;
      if (!this.plot || !this.plot.x.length) return;
      const data = [this.plot.x, ...this.plot.series.map((one) => one.values)];
      this.drawn = new uPlot(options(this.plot, Math.max(240, this.canvas.clientWidth)), data, this.canvas);
    }
  }

  // The library is fetched when the page has been painted: until then it would only be in the way.
  function fetched(source) {
    return new Promise((done, failed) => {
      const script = document.createElement("script");
      script.addEventListener("load", done);
      script.addEventListener("error", failed);
      script.src = source;
      document.head.append(script);
    });
  }

  async function begin() {
    try {
      await fetched(LIBRARY);
    } catch {
      all.forEach((one) => one.tell("What draws could not be fetched: load the page again."));
      return;
    }
    refresh();
    setInterval(() => { if (!document.hidden) refresh(); }, ofRollout ? ROLLOUT_AGAIN_MS : FLEET_AGAIN_MS);
    dark.addEventListener("change", () => all.forEach((one) => one.draw()));
  }

  const all = [...document.querySelectorAll("[data-plot]")].map((figure) => new Drawn(figure));
  const refresh = () => all.forEach((one) => one.refresh());
  const ofRollout = all.some((one) => one.figure.dataset.plot.includes("rollout="));
  if (document.hidden) begin();
  else requestAnimationFrame(() => setTimeout(begin));
  let waiting = 0;
  addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => all.forEach((one) => one.draw()), 200);
  });
})();

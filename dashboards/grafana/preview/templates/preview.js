// Paints a panel's plot with uPlot from the numbers beside it; what they are was decided before.
"use strict";

(() => {
  const drawing = JSON.parse(document.getElementById("drawing").textContent);
  const place = document.getElementById("plot");
  const INK = "#55595e";
  const GRID = "#e4e5e6";
  const pad = (part) => String(part).padStart(2, "0");

  function clock(seconds, incr) {
    const at = new Date(seconds * 1000);
    const time = `${pad(at.getUTCHours())}:${pad(at.getUTCMinutes())}`;
    if (incr < 60) return `${time}:${pad(at.getUTCSeconds())}`;
    return drawing.end - drawing.start > 86400 ? `${pad(at.getUTCMonth() + 1)}/${pad(at.getUTCDate())} ${time}` : time;
  }

  function clear(color, opacity) {
    const part = (from) => parseInt(color.slice(from, from + 2), 16);
    return `rgba(${part(1)}, ${part(3)}, ${part(5)}, ${opacity})`;
  }

  // What lies behind a bar would shine through, so its colour is mixed with white instead.
  function mixed(color, opacity) {
    const part = (from) => Math.round(255 + (parseInt(color.slice(from, from + 2), 16) - 255) * opacity);
    return `rgb(${part(1)}, ${part(3)}, ${part(5)})`;
  }

  function marks(u) {
    const { left, top, height, width } = u.bbox;
    u.ctx.save();
    u.ctx.lineWidth = 1.5 * devicePixelRatio;
    u.ctx.setLineDash([4 * devicePixelRatio, 4 * devicePixelRatio]);
    for (const mark of drawing.marks) {
      const x = u.valToPos(mark.at, "x", true);
      if (x < left || x > left + width) continue;
      u.ctx.strokeStyle = mark.color;
      u.ctx.beginPath();
      u.ctx.moveTo(x, top);
      u.ctx.lineTo(x, top + height);
      u.ctx.stroke();
    }
    u.ctx.restore();
  }

  // Of bars that stand on each other the tallest is painted first.
  const order = drawing.lines.map((line, number) => number);
  if (drawing.bars) order.reverse();
  const at = (number) => order.indexOf(number) + 1;
  const axis = { stroke: INK, grid: { stroke: GRID, width: 1 }, ticks: { stroke: GRID, width: 1 } };
  const options = {
    width: place.clientWidth,
    height: drawing.height,
    legend: { show: false },
    cursor: { show: false },
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
    scales: {
      x: { range: [drawing.start, drawing.end] },
      y: { distr: drawing.log ? 3 : 1, range: [drawing.low, drawing.high] },
    },
    axes: [
      { ...axis, size: 34, values: (u, splits, number, space, incr) => splits.map((one) => clock(one, incr)) },
      {
        ...axis,
        size: 24 + 8 * Math.max(3, ...drawing.ticks.map(([, text]) => text.length)),
        splits: () => drawing.ticks.map(([value]) => value),
        values: () => drawing.ticks.map(([, text]) => text),
        filter: (u, splits) => splits,
      },
    ],
    series: [{}, ...order.map((number) => {
      const line = drawing.lines[number];
      return {
        stroke: line.color,
        width: line.width,
        dash: line.dash.length ? line.dash : undefined,
        fill: line.fill ? (drawing.bars ? mixed : clear)(line.color, line.fill) : undefined,
        paths: drawing.bars ? uPlot.paths.bars({ size: [0.8, 100] }) : undefined,
        points: drawing.bars ? { show: false } : {},
      };
    })],
    bands: drawing.bands.map((band) => ({
      series: [at(band.upper), at(band.lower)],
      fill: clear(band.color, band.opacity),
    })),
    hooks: { draw: [marks] },
  };
  const columns = order.map((number) => drawing.lines[number].values.map((one) => (one === "" ? undefined : one)));
  new uPlot(options, [drawing.x, ...columns], place);
  document.documentElement.dataset.drawn = "yes";
})();

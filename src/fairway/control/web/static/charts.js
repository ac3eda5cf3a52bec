// Draws every element with `data-chart` (JSON as dashboard/charts.py writes it) with uPlot. It needs uPlot and the colours of
// control.css, and nothing else of the pages, so that a report in one file can hold it too.
"use strict";
const fairwayCharts = (() => {
  const drawn = new WeakMap();
  const DAY = 86400;
  const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const two = (n) => String(n).padStart(2, "0");

  function time(seconds, step) {
    const t = new Date(seconds * 1000);
    const day = `${t.getUTCDate()} ${MONTHS[t.getUTCMonth()]}`;
    if (step >= 28 * DAY) return `${MONTHS[t.getUTCMonth()]} ${t.getUTCFullYear()}`;
    if (step >= DAY) return day;
    const clock = `${two(t.getUTCHours())}:${two(t.getUTCMinutes())}`;
    if (step < 60) return `${clock}:${two(t.getUTCSeconds())}`;
    return t.getUTCHours() === 0 && t.getUTCMinutes() === 0 ? day : clock;
  }

  function number(value) {
    if (value === null || value === undefined) return "–";
    const size = Math.abs(value);
    if (size >= 1e6) return `${+(value / 1e6).toPrecision(3)}M`;
    if (size >= 1e4) return `${+(value / 1e3).toPrecision(3)}k`;
    return String(+value.toPrecision(3));
  }

  function figure(value, unit) {
    if (value === null || value === undefined) return "–";
    if (unit === "share") return `${+(value * 100).toPrecision(3)}%`;
    if (unit === "rate") return `${number(value)}/s`;
    if (unit === "seconds") {
      const size = Math.abs(value);
      if (size === 0) return "0";
      return size < 1e-3 ? `${number(value * 1e6)} µs` : size < 1 ? `${number(value * 1e3)} ms` : `${number(value)} s`;
    }
    return number(value);
  }

  // The series of uPlot: limits first, so that lines lie over them, then lines, then the points that are outside.
  function assemble(chart) {
    const data = [chart.times], series = [{}], bands = [];
    const none = () => ({ stroke: "transparent", width: 0, points: { show: false } });
    const between = (lower, upper, fill) => {
      data.push(upper, lower);
      series.push(none(), none());
      bands.push({ series: [series.length - 2, series.length - 1], fill });
    };
    const known = (values) => values && values.some((value) => value !== null);
    if (known(chart.usual_lower)) between(chart.usual_lower, chart.usual_upper, color("--usual"));
    for (const line of chart.lines) {
      if (known(line.lower)) between(line.lower, line.upper, color(line.role === "estimate" ? "--band-estimate" : "--band"));
    }
    for (const line of chart.lines) {
      const role = line.role ?? "main";
      const few = line.values.filter((value) => value !== null).length < 40;
      const stroke = color(role === "main" ? "--series" : "--series-estimate");
      data.push(line.values);
      series.push({
        stroke, width: role === "main" ? 1.75 : 1.5, dash: role === "estimate" ? [5, 4] : undefined, spanGaps: false,
        points: { show: few, size: 4, fill: stroke, stroke },
      });
    }
    for (const line of chart.lines) {
      if (!line.alert?.some(Boolean)) continue;
      const role = line.role ?? "main";
      data.push(line.values.map((value, i) => (line.alert[i] ? value : null)));
      series.push({
        stroke: color(role === "main" ? "--critical" : "--warning"), width: 0,
        points: { show: true, size: 7, fill: color(role === "main" ? "--critical" : "--paper"), width: 1.75 },
      });
    }
    return { data, series, bands };
  }

  // Vertical lines where something happened.
  const marks = (list) => ({
    hooks: {
      draw: (u) => {
        const { ctx, bbox } = u;
        ctx.save();
        ctx.strokeStyle = color("--critical");
        ctx.lineWidth = devicePixelRatio;
        ctx.setLineDash([2 * devicePixelRatio, 3 * devicePixelRatio]);
        for (const mark of list ?? []) {
          const x = Math.round(u.valToPos(mark.at, "x", true));
          if (x < bbox.left || x > bbox.left + bbox.width) continue;
          ctx.beginPath();
          ctx.moveTo(x, bbox.top);
          ctx.lineTo(x, bbox.top + bbox.height);
          ctx.stroke();
        }
        ctx.restore();
      },
    },
  });

  // What the pointer is over, in words below the chart.
  const reader = (chart, out) => ({
    hooks: {
      setCursor: (u) => {
        const i = u.cursor.idx;
        if (i === null || i === undefined) { out.textContent = "\u00a0"; return; }
        const parts = chart.lines.map((line) => {
          const limits = line.lower?.[i] != null ? ` (${figure(line.lower[i], chart.unit)} to ${figure(line.upper[i], chart.unit)})` : "";
          return `${line.label} ${figure(line.values[i], chart.unit)}${limits}`;
        });
        out.textContent = `${time(chart.times[i], DAY)} ${time(chart.times[i], 1)}  ·  ${parts.join("  ·  ")}`;
      },
    },
  });

  function options(element, chart, parts, out) {
    const axis = { stroke: color("--muted"), grid: { stroke: color("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
    const flat = chart.times.length < 2;
    return {
      width: Math.max(160, element.clientWidth), height: 190, padding: [8, 32, 0, 0],
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
      legend: { show: false }, bands: parts.bands, series: parts.series,
      cursor: { y: false, drag: { x: false, y: false }, points: { show: false } },
      scales: {
        x: { range: flat ? (u, min) => [min - 60, min + 60] : undefined },
        y: {
          range: (u, min, max) => {
            if (min === null) return [0, 1];
            const low = chart.zero ? Math.min(0, min) : min, pad = (max - low || Math.abs(max) || 1) * 0.08;
            return [chart.zero ? low : low - pad, max + pad];
          },
        },
      },
      axes: [
        { ...axis, space: 70, size: 30, values: (u, splits, i, space, step) => splits.map((s) => time(s, step)) },
        { ...axis, size: 54, values: (u, splits) => splits.map((s) => figure(s, chart.unit)) },
      ],
      plugins: [marks(chart.marks), reader(chart, out)],
    };
  }

  function drawOne(element, anew) {
    const text = element.dataset.chart, before = drawn.get(element);
    if (before && before.text === text && !anew) return;
    const chart = JSON.parse(text);
    before?.plot.destroy();
    element.replaceChildren();
    const place = document.createElement("div"), out = document.createElement("p");
    out.className = "readout";
    out.textContent = "\u00a0";
    element.append(place, out);
    drawn.set(element, { text, plot: new uPlot(options(element, chart, assemble(chart), out), [chart.times, ...assemble(chart).data.slice(1)], place) });
    watch.observe(element);
  }

  const watch = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      const known = drawn.get(target), width = Math.max(160, target.clientWidth);
      if (known && known.plot.width !== width) known.plot.setSize({ width, height: 190 });
    }
  });

  const all = (root, anew) => {
    for (const element of root.querySelectorAll("[data-chart]")) drawOne(element, anew);
  };
  document.addEventListener("DOMContentLoaded", () => all(document, false));
  document.addEventListener("fairway:theme", () => { if (document.body) all(document, true); });
  matchMedia("print").addEventListener("change", () => all(document, true));
  return { draw: (root = document) => all(root, false) };
})();

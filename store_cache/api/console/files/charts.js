/* The last hour in four charts, drawn by uPlot from /v1/store/metrics/history. */

import { $, make, setText } from "./dom.js";
import { seconds } from "./format.js";
import { get, Refused } from "./session.js";

const POINT_SECONDS = 10;
const MINUTES = 60;
const HEIGHT = 130;
const SHORTEST_SPAN = 600;

const CHARTS = [
  {
    title: "Feed delay",
    unit: "ms",
    series: [
      ["half within", (point) => milliseconds(point.visibleSeconds.p50)],
      ["99 % within", (point) => milliseconds(point.visibleSeconds.p99)],
    ],
  },
  { title: "Events behind Central", unit: "", series: [["events", (point) => point.lag]] },
  {
    title: "Requests",
    unit: "/s",
    series: [["reads", (point) => point.readsPerSecond], ["writes", (point) => point.writesPerSecond]],
  },
  {
    title: "Errors",
    unit: "/s",
    series: [
      ["answers of the store", (point) => point.errorsPerSecond],
      ["answers of Central", (point) => point.centralErrorsPerSecond],
    ],
  },
];

let points = []; // oldest first
let drawn = [];

export async function startCharts() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  dark.addEventListener("change", build);
  new ResizeObserver(resize).observe($("charts"));
  await refresh(MINUTES);
  setInterval(() => refresh(points.length ? 1 : MINUTES), POINT_SECONDS * 1000);
}

async function refresh(minutes) {
  if (document.hidden && points.length) minutes = MINUTES; // catch up in one go once it is seen
  try {
    const answer = await get(`/v1/store/metrics/history?minutes=${minutes}`);
    merge(answer.points);
    setText($("charts-note"), "");
  } catch (error) {
    setText($("charts-note"), error instanceof Refused && error.status === 404
      ? "The store keeps no figures of its past: METRICS is off." : "Not up to date.");
    return;
  }
  if (drawn.length) draw(); else build();
}

function merge(given) {
  const news = given.map((point) => ({ ...point, at: seconds(point.at) }));
  const from = news.length ? news[0].at : Infinity;
  points = [...points.filter((point) => point.at < from), ...news].slice(-MINUTES * 60 / POINT_SECONDS);
}

function build() {
  for (const { plot } of drawn) plot.destroy();
  drawn = CHARTS.map((chart) => {
    const now = make("span", { class: "now" });
    const place = make("div", { class: "plot" });
    const keys = make("p", { class: "key" }, ...chart.series.flatMap(([label], index) => [
      make("i", { class: index ? "second" : "" }), label,
    ]));
    const box = make("div", { class: "chart" }, make("header", {}, make("h3", {}, chart.title), now), place, keys);
    return { chart, now, place, box };
  });
  $("charts").replaceChildren(...drawn.map(({ box }) => box));
  for (const one of drawn) one.plot = new uPlot(options(one), data(one.chart), one.place);
  draw();
}

function options({ chart, place }) {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const axis = { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
  return {
    width: Math.max(place.clientWidth, 200),
    height: HEIGHT,
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false } },
    scales: { x: { range: span }, y: { range: (_, __, most) => [0, Math.max(most * 1.15, 1)] } },
    axes: [
      { ...axis, size: 24, space: 60, incrs: [60, 120, 300, 600, 900, 1800], values: (_, times) => times.map((time) => new Date(time * 1000).toTimeString().slice(0, 5)) },
      { ...axis, size: 44, space: 32, values: (_, values) => values.map(short) },
    ],
    series: [{}, ...chart.series.map((_, index) => ({
      stroke: colour(`--series-${index + 1}`), width: 2, spanGaps: false, points: { show: false },
    }))],
  };
}

function span(_plot, first, last) {
  const end = points.length ? last : Date.now() / 1000;
  return [Math.min(points.length ? first : end, end - SHORTEST_SPAN), end];
}

function data(chart) {
  return [points.map((point) => point.at), ...chart.series.map(([, value]) => points.map(value))];
}

function draw() {
  const last = points.at(-1);
  for (const { chart, now, plot } of drawn) {
    plot.setData(data(chart));
    setText(now, last ? chart.series.map(([, value]) => latest(value(last), chart.unit)).join(" · ") : "");
  }
  if (!last) setText($("charts-note"), `The first point comes ${POINT_SECONDS} s after the start.`);
}

function milliseconds(value) {
  return value === null ? null : value * 1000;
}

function latest(value, unit) {
  return value === null || value === undefined ? "–" : `${short(value)} ${unit}`.trim();
}

function short(value) {
  if (value >= 10_000) return `${Math.round(value / 1000)}k`;
  return value >= 100 || Number.isInteger(value) ? String(Math.round(value)) : value.toFixed(1);
}

function resize() {
  for (const { plot, place } of drawn) {
    if (place.clientWidth && plot.width !== place.clientWidth) plot.setSize({ width: place.clientWidth, height: HEIGHT });
  }
}

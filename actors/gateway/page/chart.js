// Lines over time as SVG, drawn by hand.
import { h, number, span } from './dom.js';

const W = 340, LEFT = 36, RIGHT = 4, TOP = 8, BOTTOM = 18;

function nice(max) {
  if (!(max > 0)) return 1;
  const unit = 10 ** Math.floor(Math.log10(max));
  return [1, 2, 2.5, 5, 10].map((f) => f * unit).find((step) => step >= max) ?? max;
}

const hour = (ms, long) => new Date(ms).toLocaleString(undefined, long
  ? { weekday: 'short', hour: '2-digit', minute: '2-digit', hourCycle: 'h23' } : { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' });

// points: [{at, value}]; frame: {since, until, step}. Where steps are missing the line has a gap.
export function chart({ title, points, frame, height = 112, unit = '', whole = false, ref = null }) {
  const H = height, values = points.map((p) => p.value).concat(ref ?? []);
  const lowest = Math.min(0, ...values), top = nice(Math.max(...values, whole ? 1 : 0) || 1);
  const low = lowest < 0 ? -nice(-lowest) : 0;
  const x = (at) => LEFT + (at - frame.since) / (frame.until - frame.since) * (W - LEFT - RIGHT);
  const y = (v) => TOP + (top - v) / (top - low) * (H - TOP - BOTTOM);
  const parts = [];
  for (const p of points) {
    const part = parts.at(-1);
    if (part && p.at - part.at(-1).at <= frame.step * 3) part.push(p);
    else parts.push([p]);
  }
  const path = (part) => part.map((p, i) => `${i ? 'L' : 'M'}${x(p.at).toFixed(1)} ${y(p.value).toFixed(1)}`).join('');
  const area = (part) => `${path(part)}L${x(part.at(-1).at).toFixed(1)} ${y(Math.max(low, 0)).toFixed(1)}L${x(part[0].at).toFixed(1)} ${y(Math.max(low, 0)).toFixed(1)}Z`;
  const long = frame.until - frame.since > 86400000;
  const last = points.at(-1);
  const say = (p) => (p ? `${number(p.value)}${unit}` : 'no values');
  const ticks = [low, (low + top) / 2, top];
  const times = [0, 0.5, 1].map((f) => frame.since + f * (frame.until - frame.since));
  const point = (event) => {
    const svg = event.currentTarget, box = svg.getBoundingClientRect();
    const at = frame.since + ((event.clientX - box.left) / box.width * W - LEFT) / (W - LEFT - RIGHT) * (frame.until - frame.since);
    let near = null;
    for (const p of points) if (!near || Math.abs(p.at - at) < Math.abs(near.at - at)) near = p;
    if (!near) return;
    const mark = svg.querySelector('.mark');
    for (const name of ['x1', 'x2']) mark.setAttribute(name, x(near.at));
    mark.setAttribute('visibility', 'visible');
    svg.parentNode.querySelector('.now').textContent = `${say(near)} at ${hour(near.at, long)}`;
  };
  const leave = (event) => {
    event.currentTarget.querySelector('.mark').setAttribute('visibility', 'hidden');
    event.currentTarget.parentNode.querySelector('.now').textContent = say(last);
  };
  return h('figure', { class: 'chart', 'data-key': title },
    h('figcaption', {}, h('span', { class: 'name' }, title), h('span', { class: 'now' }, say(last))),
    h('svg', { viewBox: `0 0 ${W} ${H}`, role: 'img', onpointermove: point, onpointerleave: leave,
      'aria-label': `${title} over ${span((frame.until - frame.since) / 1000)}: ${points.length
        ? `last ${say(last)}, most ${number(Math.max(...points.map((p) => p.value)))}, least ${number(Math.min(...points.map((p) => p.value)))}` : 'no values'}` },
    ticks.map((v) => [h('line', { class: 'grid', x1: LEFT, x2: W - RIGHT, y1: y(v), y2: y(v) }),
      h('text', { class: 'tick', x: LEFT - 5, y: y(v) + 3.5, 'text-anchor': 'end' }, number(v))]),
    times.map((at, i) => h('text', { class: 'tick', x: x(at), y: H - 4, 'text-anchor': i === 0 ? 'start' : i === 2 ? 'end' : 'middle' }, hour(at, long))),
    ref === null ? null : h('line', { class: 'ref', x1: LEFT, x2: W - RIGHT, y1: y(ref), y2: y(ref) }),
    parts.map((part) => (part.length > 1 ? [h('path', { class: 'area', d: area(part) }), h('path', { class: 'line', d: path(part) })]
      : h('circle', { class: 'dot', cx: x(part[0].at), cy: y(part[0].value), r: 2 }))),
    h('line', { class: 'mark', y1: TOP, y2: H - BOTTOM, x1: 0, x2: 0, visibility: 'hidden' })));
}

// What metric_series answers as a line; `rate`: a counter, shown as growth in a minute.
export function lineOf(series, agent, { rate = false } = {}) {
  const found = series?.lines.find((one) => one.agent === agent) ?? series?.lines[0];
  const frame = { since: series?.since ?? 0, until: series?.until ?? 1, step: series?.step_ms ?? 1 };
  const points = found?.points ?? [];
  if (!rate) return { frame, points: points.map((p) => ({ at: p.at, value: p.avg })) };
  const grown = [];
  for (let i = 1; i < points.length; i++) {
    const more = points[i].max - points[i - 1].max; // below 0: it began anew
    grown.push({ at: points[i].at, value: (more >= 0 ? more : points[i].max) / (points[i].at - points[i - 1].at) * 60000 });
  }
  return { frame, points: grown };
}

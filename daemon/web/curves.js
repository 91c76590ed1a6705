// Dose-response curves, one drawing for each compound and patient: they grow while wells finish. A drawing is made anew
// where its curve changed, and no other.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const AREA = { width: 320, height: 210, left: 40, right: 10, top: 8, bottom: 34, controls: 30 };
let curvesTag = "", curvesOf = "";

const refreshCurves = once(async () => {
  if (!plate) return;
  const name = plate.plate, tag = curvesOf === name ? curvesTag : "";
  const answer = await ask(`/page/curves?plate=${encodeURIComponent(name)}`, { headers: tag ? { "if-none-match": tag } : {} });
  if (answer.status !== 304) {
    const found = await answer.json();
    [curvesTag, curvesOf] = [answer.headers.get("etag"), name];
    showCurves(found.curves);
  }
});

function showCurves(curves) {
  const box = $("curves"), before = new Map([...box.children].map((card) => [card.dataset.key, card]));
  $("no-curves").hidden = curves.length > 0;
  $("no-curves").textContent = say("no_curves");
  box.replaceChildren(...curves.map((curve) => {
    const key = JSON.stringify(curve);
    return before.get(key) || curveCard(curve, key);
  }));
}

function svg(name, attributes, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

const nameOf = (curve) => [curve.compound, curve.patient].filter(Boolean).join(" · ");

function curveCard(curve, key) {
  const total = curve.points.length + curve.missing.length;
  const value = told(curve.ic50), status = told(curve.said);
  const bound = /^[<>]/.test(value); // known to lie beyond the doses; else there is only its status to tell
  const known = curve.ic50_um ? say("ic50_interval", { value, interval: told(curve.interval) }) : bound ? say("ic50", { value }) : "";
  const soFar = (what) => (curve.provisional ? say("so_far", { what }) : what); // wells to come may say something else
  const ic50 = known ? soFar(known) : curve.provisional ? say("no_ic50_yet") : status;
  const words = [say("curve_wells", { n: curve.points.length, total }), ...(ic50 === status ? [] : [known ? status : soFar(status)]), ...(curve.provisional ? [say("curve_provisional")] : [])];
  const card = element("article", { className: "curve" },
    element("h2", { textContent: nameOf(curve) }),
    element("p", { className: "ic50", textContent: ic50 }), curveDrawing(curve),
    element("p", { className: "said", textContent: words.join(" · "), title: sentence(curve.reason) }),
    ...curve.warnings.map((one) => element("p", { className: "flag", textContent: sentence(one) })));
  Object.assign(card.dataset, { key, status: curve.status });
  return card;
}

function curveDrawing(curve) {
  const { width, height, left, right, top, bottom, controls } = AREA;
  const doses = [...curve.points.map((one) => one[1]), ...curve.missing.map((one) => one[1])].filter((one) => one > 0);
  const low = Math.log10(Math.min(...doses, Infinity)), high = Math.log10(Math.max(...doses, 0));
  const first = Number.isFinite(low) ? low : -1, span = Math.max((Number.isFinite(high) ? high : 1) - first, 0.3);
  const x = (value) => (value > 0 ? left + controls + ((Math.log10(value) - first) / span) * (width - left - controls - right - 8) : left + controls / 3);
  const largest = 1.04 * Math.max(108, ...curve.points.map((one) => one[2]), ...curve.controls.map((one) => one[1]));
  const y = (value) => top + (1 - Math.min(Math.max(value, 0), largest) / largest) * (height - top - bottom);
  const found = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": say("curve_alt", { name: nameOf(curve), value: told(curve.ic50), said: curve.provisional ? say("so_far", { what: told(curve.said) }) : told(curve.said) }) });
  found.append(...axes(x, y, first, first + span, largest), ...fitted(curve, x, y), ...points(curve, x, y));
  return found;
}

function axes(x, y, first, last, largest) {
  const { width, height, left, right, top, bottom } = AREA, floor = height - bottom;
  const made = [svg("path", { class: "axis", d: `M${left} ${top}V${floor}H${width - right}` })];
  for (const value of [0, 50, 100, ...(largest >= 150 ? [150] : [])]) {
    made.push(svg("line", { class: value === 50 ? "half" : "grid", x1: left, x2: width - right, y1: y(value), y2: y(value) }));
    made.push(svg("text", { x: left - 5, y: y(value) + 4, "text-anchor": "end" }, String(value)));
  }
  made.push(svg("text", { x: x(0), y: floor + 14, "text-anchor": "middle" }, "0"));
  for (let power = Math.ceil(first - 1e-9); power <= last + 1e-9; power++) {
    made.push(svg("text", { x: x(10 ** power), y: floor + 14, "text-anchor": "middle" }, power >= 0 ? String(10 ** power) : (10 ** power).toFixed(-power)));
  }
  made.push(svg("text", { class: "name", x: (left + width) / 2, y: height - 4, "text-anchor": "middle" }, say("curve_x")));
  made.push(svg("text", { class: "name", x: 10, y: (top + floor) / 2, "text-anchor": "middle", transform: `rotate(-90 10 ${(top + floor) / 2})` }, say("curve_y")));
  return made;
}

function fitted(curve, x, y) {
  const at = (pairs) => pairs.map(([dose, value]) => `${x(dose).toFixed(1)} ${y(value).toFixed(1)}`).join("L");
  const line = curve.line.filter((one) => one[1] !== null), inside = curve.line.filter((one) => one[2] !== null && one[3] !== null);
  const made = [];
  if (inside.length > 1) {
    made.push(svg("path", { class: "band", d: `M${at(inside.map((one) => [one[0], one[3]]))}L${at(inside.map((one) => [one[0], one[2]]).reverse())}Z` }));
  }
  if (line.length > 1) made.push(svg("path", { class: "fit", d: `M${at(line)}` }));
  if (curve.ic50_um && line.length > 1) {
    const [value, low, high] = curve.ic50_um, ends = [line[0][0], line[line.length - 1][0]];
    const held = (dose) => x(Math.min(Math.max(dose, ends[0]), ends[1])), floor = AREA.height - AREA.bottom;
    if (value >= ends[0] && value <= ends[1]) made.push(svg("line", { class: "ic50", x1: x(value), x2: x(value), y1: AREA.top, y2: floor }));
    made.push(svg("line", { class: "interval", x1: held(low ?? ends[0]), x2: held(high ?? ends[1]), y1: floor, y2: floor }));
  }
  return made;
}

function points(curve, x, y) {
  const dot = (well, cx, value, words, why, kind) => {
    const title = why ? say("point_out", { point: words, why }) : words;
    const made = svg("circle", { class: `${kind}${why ? " out" : ""}`, cx: cx.toFixed(1), cy: y(value).toFixed(1), r: 3.6 }, svg("title", {}, title));
    made.dataset.well = well;
    return made;
  };
  const controls = curve.controls.map(([well, value, why], n) => {
    const words = say("point_control", { well, value: value.toFixed(1) });
    return dot(well, x(0) + (((n * 0.618034) % 1) - 0.5) * 12, value, words, why, "control");
  });
  const treated = curve.points.map(([well, at, value, why]) => dot(well, x(at), value, say("point", { well, dose: dose(at), value: value.toFixed(1) }), why, "treated"));
  const missing = curve.missing.map(([well, at, why], n) => { // a well to come stands on the axis, and has no figure
    const mark = svg("path", { class: "missing", d: `M${(x(at) - 3 + (n % 3) * 3).toFixed(1)} ${AREA.height - AREA.bottom}v-6` }, svg("title", {}, say("point_missing", { well, dose: dose(at), why: told(why) })));
    mark.dataset.well = well;
    return mark;
  });
  return [...missing, ...controls, ...treated];
}

$("curves").addEventListener("click", (event) => {
  const mark = event.target.closest("[data-well]");
  if (mark) openWell(mark.dataset.well);
});

// The instrument before a run: single images, live for a while, where the focus is. An exposure is tried out here before
// it goes into the plan. Nothing is asked of the instrument unless somebody presses a button.
"use strict";

const LIVE_MS = 120000, PAUSE_MS = 250; // light falls on the sample: live ends by itself
const PLOT = { width: 320, height: 120, left: 34, right: 8, top: 6, bottom: 26 };
let liveUntil = 0, snapped = null, swept = null, looking = false;

const typed = (id) => $(id).value.trim();
const decimal = (id) => { const text = typed(id).replace(",", "."); return text === "" ? undefined : Number(text); };

function snapOrder() {
  const found = { plate: chosen(), channel: $("snap-channel").value, well: typed("snap-well") };
  for (const [name, id] of [["exposure_ms", "snap-exposure"], ["z_um", "snap-z"]]) {
    const value = decimal(id);
    if (Number.isNaN(value)) { note(say("no_number", { what: typed(id) }), true); return null; }
    if (value !== undefined) found[name] = value;
  }
  return found;
}

// Asks the instrument for something; null where it was refused, which is told.
async function look(path, body) {
  looking = true;
  showLive();
  try {
    const answer = await ask(path, { method: "POST", headers: { "content-type": "application/json", prefer: "wait=115" }, body: JSON.stringify(body) });
    return await answer.json();
  } catch (error) {
    liveUntil = 0;
    if (error instanceof Refused) note(error.do ? say("refused", { what: error.message, do: error.do }) : error.message, true);
    else note(say("no_answer"), true);
    return null;
  } finally { looking = false; showLive(); }
}

async function snap() {
  const order = snapOrder();
  const found = order && await look("/v1/live:snap", order);
  if (found) { snapped = found; showSnapshot(); }
  return found;
}

async function live() {
  liveUntil = Date.now() + LIVE_MS;
  while (Date.now() < liveUntil && viewShown() === "live" && !document.hidden) {
    const began = Date.now();
    if (!await snap()) break;
    await sleep(Math.max(20, PAUSE_MS - (Date.now() - began)));
  }
  if (liveUntil && Date.now() >= liveUntil) note(say("live_over"));
  liveUntil = 0;
  showLive();
}

async function sweep() {
  liveUntil = 0;
  const { z_um: centre_um, ...rest } = snapOrder() || { plate: null };
  if (rest.plate === null) return;
  const found = await look("/v1/live:focus", { ...rest, ...(centre_um === undefined ? {} : { centre_um }), target: $("snap-target").value });
  if (!found) return;
  swept = found;
  showSweep();
}

const may = () => me.role === "operator" || me.role === "admin";

function showLive() {
  const free = may() && status && !RUNS.includes(status.state);
  for (const id of ["snap", "sweep"]) $(id).disabled = !free || looking;
  $("live-on").disabled = !free;
  $("live-on").ariaPressed = String(liveUntil > 0);
  $("live-on").textContent = say(liveUntil > 0 ? "live_stop" : "live_start");
  $("into-plan").disabled = !free || !snapped || snapped.exposure_ms === undefined;
  $("to-focus").hidden = !swept || swept.focus_um === undefined;
  $("to-focus").disabled = !free || looking;
  if (!snapped && looking) $("snap-none").textContent = say("live_loading");
  else if (!snapped) $("snap-none").textContent = may() ? say(free ? "live_none" : "live_run") : say("live_role");
}

const um = (value) => (value === undefined ? UNKNOWN : value.toFixed(1));

function showSnapshot() {
  const image = $("snap-picture"), before = image.src;
  const bytes = Uint8Array.from(atob(snapped.jpeg), (one) => one.charCodeAt(0));
  image.src = URL.createObjectURL(new Blob([bytes], { type: "image/jpeg" }));
  if (before) URL.revokeObjectURL(before);
  image.hidden = false;
  $("snap-none").hidden = true;
  image.alt = say("snap_alt", { channel: snapped.channel, well: snapped.well || say("no_well_here") });
  const share = 100 * snapped.saturated_share;
  const words = share > 0 ? say("saturated", { percent: share < 0.01 ? "< 0.01" : share.toFixed(share < 1 ? 2 : 1) }) : say("saturated_none");
  $("saturated").textContent = words;
  $("saturated").className = `flag ${share >= 0.1 ? "bad" : share > 0 ? "" : "quiet"}`;
  const full = (100 * snapped.bright_adu) / snapped.ceiling_adu;
  pairs($("snap-facts"), [
    [say("snap_exposure"), snapped.exposure_ms === undefined ? UNKNOWN : say("ms", { n: dose(snapped.exposure_ms) })],
    [say("snap_place"), say("xyz", { x: um(snapped.x_um), y: um(snapped.y_um), z: um(snapped.z_um) })],
    [say("snap_at"), snapped.well || say("no_well_here")],
    [say("snap_counts"), say("counts", { dark: Math.round(snapped.dark_adu), median: Math.round(snapped.median_adu), bright: Math.round(snapped.bright_adu) })],
    [say("snap_used"), say("percent", { n: full.toFixed(full < 10 ? 1 : 0) })],
    [say("snap_focus"), snapped.focus_measure.toPrecision(3)],
  ]);
  $("histogram").replaceChildren(histogramOf(snapped));
  showLive();
}

function frame(label) {
  const { width, height, left, right, top, bottom } = PLOT;
  const made = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  made.append(svg("path", { class: "axis", d: `M${left} ${top}V${height - bottom}H${width - right}` }));
  return made;
}

const middle = (x, text) => svg("text", { x, y: PLOT.height - PLOT.bottom + 14, "text-anchor": "middle" }, text);

// Counts on a logarithmic scale: a thousand bright pixels are seen beside a million dark ones.
function histogramOf(one) {
  const { width, height, left, right, top, bottom } = PLOT, bins = one.histogram, wide = (width - left - right) / bins.length;
  const most = Math.log10(1 + Math.max(...bins)), floor = height - bottom, x = (adu) => left + (adu / one.histogram_top_adu) * (width - left - right);
  const made = frame(say("histogram_alt", { dark: Math.round(one.dark_adu), bright: Math.round(one.bright_adu) }));
  const bars = bins.map((n, at) => (n ? `M${(left + at * wide).toFixed(1)} ${floor}v${(-(Math.log10(1 + n) / most) * (floor - top)).toFixed(1)}h${wide.toFixed(2)}V${floor}Z` : ""));
  made.append(svg("path", { class: "bars", d: bars.join("") }));
  for (const adu of [one.dark_adu, one.bright_adu]) made.append(svg("line", { class: "half", x1: x(adu), x2: x(adu), y1: top, y2: floor }));
  if (one.ceiling_adu < one.histogram_top_adu) made.append(svg("line", { class: "ic50", x1: x(one.ceiling_adu), x2: x(one.ceiling_adu), y1: top, y2: floor }));
  made.append(middle(left, "0"), middle(width - right - 14, grouped(one.histogram_top_adu)), middle((left + width) / 2, say("histogram_x")));
  return made;
}

function showSweep() {
  const { width, height, left, right, top, bottom } = PLOT, floor = height - bottom, points = swept.points || [];
  const zs = points.map((one) => one.z_um), low = Math.min(...zs), span = Math.max(Math.max(...zs) - low, 1e-9);
  const most = Math.max(...points.map((one) => one.focus_measure), 1e-12);
  const x = (z) => left + ((z - low) / span) * (width - left - right), y = (value) => floor - (value / most) * (floor - top);
  const words = swept.focus_um === undefined ? told(swept.why) : say("focus_at", { z: um(swept.focus_um) });
  const made = frame(words);
  made.append(svg("path", { class: "fit", d: `M${points.map((one) => `${x(one.z_um).toFixed(1)} ${y(one.focus_measure).toFixed(1)}`).join("L")}` }));
  for (const one of points) made.append(svg("circle", { cx: x(one.z_um).toFixed(1), cy: y(one.focus_measure).toFixed(1), r: 2.4 }));
  if (swept.focus_um !== undefined) made.append(svg("line", { class: "ic50", x1: x(swept.focus_um), x2: x(swept.focus_um), y1: top, y2: floor }));
  made.append(middle(left + 8, um(low)), middle(width - right - 14, um(low + span)), middle((left + width) / 2, say("focus_x")));
  $("focus-curve").replaceChildren(made);
  $("focus-words").textContent = words;
  $("focus").hidden = false;
  showLive();
}

// The plan's exposure of this channel, in a text that is shown before it is handed in; null where it has none.
function withExposure(toml, channel, exposure) {
  const key = `(?:"${channel}"|${channel})`, number = "[0-9][0-9_.eE+-]*";
  const places = [`(\\[source\\.channels\\.${key}\\][^\\[]*?\\bexposure_ms\\s*=\\s*)${number}`, `(${key}\\s*=\\s*\\{[^}]*?\\bexposure_ms\\s*=\\s*)${number}`];
  const found = places.map((one) => new RegExp(one)).find((one) => one.test(toml));
  return found ? toml.replace(found, (_, before) => before + exposure) : null;
}

async function intoPlan(button) {
  const { plate: name, channel, exposure_ms: exposure } = snapped;
  const change = (toml) => withExposure(toml, channel, dose(exposure));
  await editPlate(name, button, change, say("no_exposure", { plate: name, channel }));
}

$("live-order").onsubmit = (event) => { event.preventDefault(); if (!looking && !$("snap").disabled) snap(); };
$("live-on").onclick = () => { if (liveUntil) { liveUntil = 0; showLive(); } else live(); };
$("sweep").onclick = sweep;
$("to-focus").onclick = () => { $("snap-z").value = swept.focus_um.toFixed(1); snap(); };
$("into-plan").onclick = (event) => intoPlan(event.target);
for (const button of document.querySelectorAll("#z-steps button")) {
  button.onclick = () => {
    const from = decimal("snap-z") ?? snapped?.z_um;
    if (from === undefined || Number.isNaN(from)) return;
    $("snap-z").value = (from + Number(button.dataset.by)).toFixed(1);
    if (!looking && !liveUntil) snap();
  };
}

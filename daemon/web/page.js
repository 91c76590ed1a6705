// The page's first script: asking, status, the plate, one well, orders. Its words are in page_words.json. Status and
// rows come as Server-Sent Events over fetch, because an EventSource can send no token. It shows what the daemon says
// and nothing else; where the daemon falls silent it says that.
"use strict";

const $ = (id) => document.getElementById(id);
const WORDS = JSON.parse($("words").textContent);
// A text of the table, with what stands in its braces.
const say = (name, given = {}) => WORDS[name].replace(/\{(\w+)\}/g, (_, key) => given[key]);
// What the daemon says: a code of the table and its values, which may be the same again, or a text alone.
function told(text) {
  if (!Array.isArray(text)) return text ? recognised(text) : text;
  const [code, values] = text;
  return say(code, Object.fromEntries(Object.entries(values || {}).map(([name, value]) => [name, told(value)])));
}

// A text alone is known again by the English that it is made of, which is its name in the table; those that are not
// translated are not sent, and so in English there are none. What a person wrote stays as it is.
const OWN = /^(who|by|reason|why|name|holder|plate|well|key|where|path)\d*$/; // names, and a person's words, to a sentence's end
const bare = (english) => english.replace(/\{\w+\}/g, "");
const SENTENCES = Object.keys(WORDS).filter((name) => name.includes(" ")).sort((a, b) => bare(b).length - bare(a).length).map((english) => {
  const parts = english.split(/\{(\w+)\}/), values = parts.filter((_, n) => n % 2);
  const made = parts.map((part, n) => (n % 2 ? (OWN.test(part) ? "([^;]*?)" : "([^]*?)") : part.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&")));
  return { english, values, pattern: new RegExp(`^${made.join("")}$`) };
});
const recognisedBefore = new Map();
function recognised(text) {
  if (!SENTENCES.length || text.length > 1000) return text;
  if (!recognisedBefore.has(text)) {
    if (recognisedBefore.size > 2000) recognisedBefore.clear();
    recognisedBefore.set(text, translated(text));
  }
  return recognisedBefore.get(text);
}
function translated(text) {
  const [, before, inner, after] = /^([ ,;:]*)([^]*?)([ ,;:]*)$/.exec(text);
  for (const { english, values, pattern } of SENTENCES) {
    const found = pattern.exec(inner);
    if (!found) continue;
    const given = values.map((name, n) => [name, OWN.test(name) ? found[n + 1] : recognised(found[n + 1])]);
    return before + say(english, Object.fromEntries(given)) + after;
  }
  for (const between of ["; ", ": ", ", "].filter((one) => text.includes(one))) {
    const parts = text.split(between), known = parts.map((part) => recognised(part));
    if (parts.some((part, n) => part !== known[n])) return known.join(between);
  }
  return text;
}
function sentence(text) {
  const words = told(text).replaceAll(" uM", " µM");
  return words && words[0].toUpperCase() + words.slice(1) + (/[.?!]$/.test(words) ? "" : ".");
}
const UNKNOWN = say("unknown");
const SILENT_MS = 12000; // the daemon says something each second while it runs
const ORDER = ["queued", "acquiring", "stored", "scoring", "stopped", "provisional", "final", "failed", "incomplete", "skipped", "aborted"];
const STATES = Object.fromEntries(ORDER.map((state) => [state, say(`state_${state}`)]));
const BAD = ["failed", "incomplete"], LEFT_OUT = ["skipped", "aborted"]; // by themselves, and by a person
const MARKS = { failed: "×", incomplete: "×", skipped: "–", aborted: "–" };
let status = null, plate = null, me = { role: "none", viewers: [], zone: null }, chosenPlate = "", open = null;
let lastHeard = Date.now(), connected = false;

// -- asking ---------------------------------------------------------------------------------------------------------

class Refused extends Error {
  constructor(code, problem) { super(told(problem.title) || say("error", { code })); this.code = code; this.do = told(problem.do) || ""; }
}

function headers(more) {
  const token = sessionStorage.getItem("token");
  return token ? { ...more, authorization: `Bearer ${token}` } : more;
}

async function ask(path, options = {}) {
  const sent = headers(options.headers || {});
  const answer = await fetch(path, { ...options, headers: sent, cache: "no-store" });
  if (answer.ok || answer.status === 304) return answer;
  let problem = {};
  try { problem = await answer.json(); } catch { /* not from the daemon */ }
  if (answer.status === 401) await askForToken(sent.authorization ? told(problem.title) : "");
  throw new Refused(answer.status, problem);
}

const json = async (path) => (await ask(path)).json();

let asking = null; // one question for a token at a time, however many requests were refused
function askForToken(wrong) {
  const title = wrong ? say("token_wrong") : say("token_title");
  const words = wrong ? say("token_wrong_words", { what: wrong }) : say("token_words");
  asking ??= question({ title, words, label: say("token"), yes: say("token_use"), secret: true }).then((token) => {
    asking = null;
    if (token) { sessionStorage.setItem("token", token.trim()); whoAmI().catch(() => {}); }
  });
  return asking;
}

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

// Reads a stream for ever. It goes on after the event it saw last.
async function follow(path, onEvent) {
  let last = "";
  for (;;) {
    const ending = new AbortController();
    let silent = setTimeout(() => ending.abort(), 45000);
    try {
      const answer = await ask(path, { headers: last ? { "last-event-id": last } : {}, signal: ending.signal });
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let text = ""; ;) {
        const { value, done } = await reader.read();
        if (done) break;
        clearTimeout(silent);
        silent = setTimeout(() => ending.abort(), 45000);
        hear(true);
        text += value;
        for (let end; (end = text.indexOf("\n\n")) >= 0; text = text.slice(end + 2)) {
          const event = {};
          for (const line of text.slice(0, end).split("\n")) {
            const colon = line.indexOf(": ");
            if (colon > 0) event[line.slice(0, colon)] = line.slice(colon + 2);
          }
          if (event.id) last = event.id;
          if (event.data && event.event !== "problem") onEvent(JSON.parse(event.data));
        }
      }
    } catch (error) {
      if (!(error instanceof Refused) && error.name !== "AbortError" && !(error instanceof TypeError)) throw error;
    } finally { clearTimeout(silent); ending.abort(); }
    hear(false);
    await sleep(1500);
  }
}

function hear(alive) {
  connected = alive;
  if (alive) lastHeard = Date.now();
  showLost();
}

function showLost() {
  const silent = Date.now() - lastHeard;
  const lost = $("lost");
  lost.hidden = connected ? silent < 45000 : silent < 4000;
  if (!lost.hidden) {
    const since = clock(lastHeard / 1000);
    lost.textContent = say("lost", { since });
    $("state").dataset.state = "lost";
    $("state").textContent = say("no_connection");
  }
}

// -- words ----------------------------------------------------------------------------------------------------------

function duration(seconds) {
  if (seconds === undefined || seconds < 0) return UNKNOWN;
  const minutes = Math.floor(Math.round(seconds) / 60), hours = Math.floor(minutes / 60);
  if (hours) return say("hours", { hours, minutes: String(minutes % 60).padStart(2, "0") });
  if (minutes) return say("minutes", { minutes, seconds: String(Math.round(seconds) % 60).padStart(2, "0") });
  return say("seconds", { seconds: Math.round(seconds) });
}

// Times are those of the laboratory, wherever somebody looks from; without a zone of its own, of whoever looks.
const zone = () => me.zone || Intl.DateTimeFormat().resolvedOptions().timeZone;
const inZone = (seconds, parts) => new Date(seconds * 1000).toLocaleString("sv", { timeZone: zone(), ...parts });
const clock = (seconds) => inZone(seconds, { hour: "2-digit", minute: "2-digit" });
const day = (seconds) => inZone(seconds, { year: "numeric", month: "2-digit", day: "2-digit" });
const moment = (seconds) => `${day(seconds)} ${clock(seconds)}`;
const grouped = (n) => Number(n).toLocaleString("en").replaceAll(",", " ");

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function pairs(list, rows) {
  const made = rows.flatMap(([name, value, title = ""]) => [element("dt", { textContent: name, title }), element("dd", { textContent: value })]);
  list.replaceChildren(...made);
}

// At most one request is under way, and at most one waits: the newest is always shown.
function once(work) {
  let under = false, again = false;
  return async function run() {
    if (under) { again = true; return; }
    under = true;
    try { await work(); } catch (error) { if (!(error instanceof Refused || error instanceof TypeError)) throw error; }
    under = false;
    if (again) { again = false; run(); }
  };
}

// -- status ---------------------------------------------------------------------------------------------------------

const RUNS = ["running", "pausing", "paused", "aborting", "storage full", "storage fails", "scoring"];

const stateWords = () => WORDS[`daemon_${status.state.replace(" ", "_")}`] || status.state;

function onStatus(found) {
  const before = status;
  status = found;
  showLost();
  showState();
  showAlarms();
  showFacts();
  showLive();
  const moved = !before || JSON.stringify(before.wells) !== JSON.stringify(found.wells) || before.well !== found.well ||
    before.plate !== found.plate || before.instance !== found.instance;
  refreshPlate(); // asks whether anything changed, which costs next to nothing where nothing did
  if (!before || before.stack_slices_done !== found.stack_slices_done || moved) refreshLive();
  if (!before || before.plate !== found.plate || before.state !== found.state) { refreshPlates(); refreshQueue(); }
}

function showState() {
  if ($("lost").hidden) {
    $("state").dataset.state = status.state;
    $("state").textContent = stateWords();
  }
  const done = Number(status.slices_done || 0), total = Number(status.slices_total || 0);
  $("run-bar").max = total || 1;
  $("run-bar").value = done;
  const words = total ? [say("slices", { done: grouped(done), total: grouped(total) })] : [];
  if (status.state === "running" && status.slices_per_s) words.push(say("slices_per_s", { n: status.slices_per_s.toFixed(1) }));
  if (status.state === "running" && status.eta_s > 0) words.push(say("left", { time: duration(status.eta_s), until: clock(Date.now() / 1000 + status.eta_s) }));
  $("run-words").textContent = words.join("  ·  ") || "\u00a0";
  document.title = `${status.faults ? "! " : ""}${stateWords()} ${status.plate || ""}`.trim();
  showOrders();
}

function showOrders() {
  const may = me.role === "operator" || me.role === "admin";
  const state = status ? status.state : "";
  const waits = state === "paused" || state === "pausing";
  $("pause").hidden = $("pause-after").hidden = !may || state !== "running";
  $("resume").hidden = !may || !waits;
  $("abort").hidden = !may || !(state === "running" || waits || state.startsWith("storage "));
  const entry = known.find((one) => one.name === chosen());
  $("start").hidden = !may || state !== "idle" || !entry || !entry.submitted;
  const ours = open && status && status.plate === open.plate && RUNS.includes(state);
  const well = open && open.view ? open.view.state : "";
  const toCome = ["queued", "stopped", "acquiring"].includes(well);
  const untaken = well === "queued" || (["skipped", "stopped", "incomplete"].includes(well) && !stackShown()?.done); // not one slice of it
  $("next").hidden = !may || !ours || !untaken;
  $("skip").hidden = !may || !ours || !toCome;
  $("repeat").hidden = !may || !ours || toCome;
  const out = open && open.view && open.view.exclusion_reason !== null;
  $("exclude").hidden = !may || !open || !open.view || out;
  $("include").hidden = !may || !out;
  $("relabel").hidden = !may || !open || !open.view || state !== "idle";
}

// In another language the code says it, and then the instrument's or the system's own words.
function alarmWords(fault) {
  const known = WORDS.language === "en" ? "" : WORDS[`fault_${fault.code}`], said = told(fault.what);
  const what = known ? say("alarm_of", { where: known, what: said }) : said;
  return fault.where ? say("alarm_of", { where: fault.where, what }) : what;
}

function showAlarms() {
  const alarms = (status.faults || []).map((fault) => element("article", { className: "alarm" },
    element("span", { className: "mark", textContent: "▲", ariaHidden: "true" }),
    element("b", { textContent: alarmWords(fault) }),
    element("time", { textContent: fault.raised_s ? say("since", { time: clock(fault.raised_s) }) : "" }),
    element("span", { className: "do", textContent: fault.do ? say("to_do", { what: told(fault.do) }) : "" })));
  const box = $("alarms"), key = JSON.stringify(status.faults || []);
  if (box.dataset.key !== key) { box.replaceChildren(...alarms); box.dataset.key = key; layOut(); }
}

function showFacts() {
  const here = status.well ? (status.stack ? say("well_stack", { well: status.well, stack: status.stack }) : status.well) : "";
  $("now-title").textContent = here ? say("now", { well: here }) : say(RUNS.includes(status.state) ? "between_wells" : "no_well");
  $("live-none").textContent = RUNS.includes(status.state) ? say("first_on_their_way") : "";
  const done = status.stack_slices_done, total = status.stack_slices_total;
  $("stack-bar").max = total || 1;
  $("stack-bar").value = done || 0;
  $("stack-words").textContent = total ? say("slice_of", { n: done, total }) : "\u00a0";
  const at = (status.worker || "").replace(`${status.plate}/`, "").replace("/0", "");
  const worker = WORDS[`daemon_${at}`] || told(at) || UNKNOWN;
  const facts = [[say("worker"), worker]];
  if (plate && plate.latency_s) {
    const [median, longest] = plate.latency_s.map((s) => s.toFixed(1));
    facts.push([say("latency"), say("latency_value", { median, longest })]);
  }
  const free = status.disk_free_gb;
  facts.push([say("disk_free"), free === undefined ? UNKNOWN : say("gb", { n: free.toFixed(free < 10 ? 1 : 0) })]);
  if (status.scrub) {
    const ended = status.scrub.finished_s, share = status.scrub.share_done, damaged = status.scrub.damaged;
    const words = [ended === undefined ? say("scrub_none") : day(ended)];
    if (share !== undefined) words.push(say("scrub_share", { percent: Math.floor(100 * share) }));
    words.push(damaged ? say("scrub_damaged", { n: damaged }) : say("scrub_fine"));
    facts.push([say("scrub"), words.join(", ")]);
  }
  if (status.control) {
    const who = { holder: status.control.holder || say("somebody"), time: clock(status.control.expires_s) };
    facts.push([say("reserved"), say("reserved_until", who)]);
  }
  pairs($("facts"), facts);
  showVerdict();
}

const finding = (one) => `${sentence(one.what)} ${sentence(one.do)}`;

function showVerdict() {
  const found = plate && plate.quality;
  $("verdict").hidden = !found;
  if (!found) return;
  $("verdict").dataset.verdict = found.code;
  $("verdict-words").textContent = told(found.verdict) + (found.z_prime === null ? "" : ` · ${say("z_prime", { value: found.z_prime.toFixed(2) })}`);
  const known = new Set(found.findings.map((one) => sentence(one.what))); // those say what to do as well
  const why = [...found.reasons.map(sentence).filter((one) => !known.has(one)), ...found.findings.map(finding)];
  $("verdict-why").replaceChildren(...why.map((words) => element("li", { textContent: words })));
}

// -- the plate ------------------------------------------------------------------------------------------------------

let known = [];
const chosen = () => chosenPlate || (status && status.plate) || (known.length ? known[known.length - 1].name : "");

const refreshPlates = once(async () => {
  known = (await json("/v1/plates")).plates || [];
  const names = known.map((one) => one.name);
  if (names.length) $("plates").replaceChildren(...names.map((name) => element("option", { value: name, textContent: name })));
  if (chosenPlate && !names.includes(chosenPlate)) chosenPlate = "";
  $("plates").value = chosen();
  $("plates").hidden = names.length < 2;
  showOrders();
  refreshPlate();
});

const refreshPlate = once(async () => {
  const name = chosen();
  if (name) $("plate-name").textContent = name;
  $("nothing").hidden = Boolean(name);
  if (!name) {
    plate = null;
    $("grid").replaceChildren();
    $("nothing").textContent = say("no_plate");
    return;
  }
  try {
    const tag = plate && plate.plate === name ? plate.tag : "";
    const answer = await ask(`/page/plate?plate=${encodeURIComponent(name)}`, { headers: tag ? { "if-none-match": tag } : {} });
    if (answer.status === 304) { refreshView(); return; } // curves may be behind the plate
    plate = await answer.json();
    plate.tag = answer.headers.get("etag");
    $("nothing").hidden = true;
    showPlate();
  } catch (error) {
    if (!(error instanceof Refused) || error.code !== 400) throw error;
    plate = null; // submitted, and not begun yet
    $("grid").replaceChildren();
    $("nothing").hidden = false;
    $("nothing").textContent = say("not_started", { plate: name });
  }
  if (status) showFacts();
  refreshView();
  if (open && open.plate === name) refreshWell();
});

// The other views are asked for where they are looked at, and where the plate changed.
const VIEWS = { plate: () => {}, curves: () => refreshCurves(), results: () => refreshResults(), live: () => showLive(), queue: () => refreshQueue() };
const viewShown = () => Object.keys(VIEWS).find((name) => !$(`view-${name}`).hidden);
const refreshView = () => VIEWS[viewShown()]();

function showView(name) {
  for (const one of Object.keys(VIEWS)) {
    const tab = $(`tab-${one}`), here = one === name;
    tab.ariaSelected = String(here);
    tab.tabIndex = here ? 0 : -1;
    $(`view-${one}`).hidden = !here;
  }
  if (location.hash.slice(1) !== name) history.replaceState(null, "", name === "plate" ? location.pathname : `#${name}`);
  layOut();
  refreshView();
}

$("views").addEventListener("click", (event) => { if (event.target.id.startsWith("tab-")) showView(event.target.id.slice(4)); });
$("views").addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key], names = Object.keys(VIEWS);
  if (!step) return;
  const to = names[(names.indexOf(viewShown()) + step + names.length) % names.length];
  showView(to);
  $(`tab-${to}`).focus();
});

function showPlate() {
  const grid = $("grid"), shape = `${plate.plate}/${plate.rows.length}x${plate.columns}/${plate.wells.length}`;
  if (grid.dataset.shape !== shape) buildGrid(grid, shape);
  const shown = document.querySelector('input[name="shown"]:checked').value;
  grid.dataset.shown = shown;
  $("shown-focus").hidden = !plate.focus_um;
  const patients = shown === "layout" && layoutKey().patients.length > 1 ? layoutKey().patients : [];
  const counts = {};
  for (const well of plate.wells) {
    counts[well.state] = (counts[well.state] || 0) + 1;
    const cell = $(`well-${well.well}`);
    showCell(cell, well, shown);
    const letter = patients.length && well.patient ? String(patients.indexOf(well.patient) + 1) : shown === "layout" ? "" : well.letter;
    if (cell.lastChild.textContent !== letter) cell.lastChild.textContent = letter;
  }
  const order = Object.keys(STATES).filter((state) => counts[state]);
  $("tally").textContent = order.map((state) => say("tally", { n: counts[state], state: STATES[state] })).join(", ");
  showLegend(shown, order);
}

function showCell(cell, well, shown) {
  const mark = well.excluded ? "×" : MARKS[well.state] || (well.trust === "fail" ? "!" : "");
  const layout = shown === "layout" ? labelled(well) : null;
  const figure = layout || (shown === "state" || mark ? null : well[shown]);
  const text = layout ? layout[0] : mark || (figure ? figure[0] : "");
  if (cell.firstChild.data !== text) cell.firstChild.data = text;
  cell.dataset.state = layout ? "layout" : well.state;
  cell.classList.toggle("known", Boolean(figure) && !layout);
  cell.classList.toggle("flagged", well.flagged && !layout);
  cell.classList.toggle("excluded", well.excluded);
  const done = shown === "state" && ["final", "provisional"].includes(well.state) && !well.excluded;
  cell.style.background = figure ? figure[1] : done ? "var(--ready)" : "";
  cell.style.color = figure ? figure[2] : "";
  setPattern(cell, layout ? layout[3] : undefined);
  const said = figure && !layout ? (shown === "viability" ? say("percent", { n: figure[0] }) : figure[0]) : "";
  const stands = well.words.map(told).join("; ");
  const words = said ? say("cell", { well: well.well, figure: said, words: stands }) : say("cell_bare", { well: well.well, words: stands });
  if (cell.title !== words) { cell.title = words; cell.ariaLabel = words; }
}

// What a well holds: its dose in the compound's colour, light to dark with the dose. Tol's light colours, on all of
// which black is read; more compounds than that take further hues.
const TINTS = ["#77aadd", "#ee8866", "#44bb99", "#ffaabb", "#bbcc33", "#99ddff", "#eedd88", "#bb99cc"];
let layoutOf = { plate: null };
function layoutKey() {
  if (layoutOf.plate === plate) return layoutOf;
  const samples = plate.wells.filter((well) => well.role === "sample" && well.compound);
  const compounds = [...new Set(samples.map((well) => well.compound))];
  const tint = (n) => TINTS[n] || `hsl(${(n * 137.5) % 360} 60% 70%)`;
  const ranks = new Map(compounds.map((name, n) => {
    const doses = [...new Set(samples.filter((well) => well.compound === name).map((well) => well.dose_um))].sort((a, b) => a - b);
    return [name, { n, tint: tint(n), doses }];
  }));
  const patients = [...new Set(plate.wells.map((well) => well.patient).filter(Boolean))];
  layoutOf = { plate, ranks, patients };
  return layoutOf;
}

function labelled(well) {
  if (well.role !== "sample" || !well.compound) return [well.letter || "", well.letter === "U" ? "#ffffff" : well.letter === "K" ? "#9aa3ae" : "var(--pale)", "#1b1f24"];
  const { n, tint, doses } = layoutKey().ranks.get(well.compound);
  const share = doses.length < 2 ? 1 : doses.indexOf(well.dose_um) / (doses.length - 1);
  return [well.dose, `color-mix(in srgb, ${tint} ${Math.round(25 + 75 * share)}%, #ffffff)`, "#1b1f24", n];
}

// In red light all colours are one: there each compound has a pattern, sixteen of them before one comes again.
function setPattern(cell, n) {
  if (n === undefined) delete cell.dataset.pattern;
  else cell.dataset.pattern = n % 8;
  cell.classList.toggle("wide", n % 16 >= 8);
}

const dose = (value) => Number(value.toPrecision(3)).toString();
function layoutLegend() {
  const { ranks, patients } = layoutKey();
  const made = [...ranks].map(([name, { n, tint, doses }]) => {
    const swatch = element("span", { className: "well" });
    swatch.style.background = tint;
    setPattern(swatch, n);
    return element("span", { className: "one" }, swatch, `${name}, ${say("doses", { low: dose(doses[0]), high: dose(doses[doses.length - 1]) })}`);
  });
  made.push(element("span", { className: "one" }, say("controls_marks")));
  if (patients.length > 1) made.push(element("span", { className: "one" }, patients.map((name, n) => `${n + 1} ${name}`).join(", ")));
  return made;
}

function buildGrid(grid, shape) {
  grid.dataset.shape = shape;
  const wells = new Map(plate.wells.map((well) => [`${well.row}/${well.column}`, well]));
  const heads = Array.from({ length: plate.columns }, (_, n) => element("span", { className: "name", textContent: n + 1 }));
  const lines = [element("div", { className: "line", ariaHidden: "true" }, element("span"), ...heads)];
  plate.rows.forEach((name, row) => {
    const line = element("div", { className: "line" }, element("span", { className: "name", textContent: name }));
    if (plate.wells.some((well) => well.row === row)) line.role = "row"; // one without wells is a letter and nothing else
    for (let column = 0; column < plate.columns; column++) {
      const well = wells.get(`${row}/${column}`);
      if (!well) { line.append(element("span", { className: "unused" })); continue; }
      const cell = element("button", { className: "well", type: "button", id: `well-${well.well}`, role: "gridcell", tabIndex: -1 });
      cell.append(document.createTextNode(""), element("span", { className: "letter", textContent: well.letter, ariaHidden: "true" }));
      Object.assign(cell.dataset, { well: well.well, row, column });
      line.append(cell);
    }
    lines.push(line);
  });
  grid.replaceChildren(...lines);
  delete $("legend").dataset.key;
  const first = grid.querySelector(".well");
  if (first) first.tabIndex = 0;
  layOut();
}

// As large as the room allows.
function layOut() {
  const room = $("room").getBoundingClientRect(), grid = $("grid");
  if (!plate || !room.width) return;
  const narrow = matchMedia("(max-width: 980px)").matches; // there the room is as high as the grid
  const high = narrow ? Infinity : (room.height - 20) / plate.rows.length;
  const cell = Math.max(6, Math.floor(Math.min((room.width - 28) / plate.columns, high, 104)));
  grid.style.gridTemplateColumns = `26px repeat(${plate.columns}, ${cell}px)`;
  grid.style.gridTemplateRows = `18px repeat(${plate.rows.length}, ${cell}px)`;
  grid.style.fontSize = `${Math.max(0, Math.min(20, cell * (cell < 30 ? 0.33 : 0.36)))}px`;
  grid.classList.toggle("small", cell < 30);
  grid.classList.toggle("tiny", cell < 20);
  for (const letter of grid.getElementsByClassName("letter")) letter.hidden = cell < 34;
  for (const well of grid.getElementsByClassName("well")) well.style.fontSize = cell < 20 ? "0" : "inherit";
}

function showLegend(shown, states) {
  const flagged = plate.wells.some((well) => well.flagged), failed = plate.wells.some((well) => well.trust === "fail");
  const key = `${shown}/${states}/${plate.tops[shown]}/${flagged}/${failed}/${shown === "layout" ? plate.tag : ""}`;
  if ($("legend").dataset.key === key) return;
  $("legend").dataset.key = key;
  $("legend").replaceChildren(...(shown === "layout" ? layoutLegend() : figureLegend(shown, states, flagged, failed)));
}

function figureLegend(shown, states, flagged, failed) {
  const made = [];
  if (shown !== "state") {
    const steps = plate.scale.map((colour) => { const step = element("i"); step.style.background = colour; return step; });
    if (shown === "focus") {
      const [low, high] = plate.focus_um;
      made.push(element("span", { className: "scale" }, element("span", {}, ...steps), say("focus_range", { low: low.toFixed(1), high: high.toFixed(1) })));
      return made;
    }
    const top = plate.tops[shown], at = Math.round((100 / top) * (steps.length - 1));
    const written = top < 10 ? top.toFixed(1) : String(Math.round(top));
    if (shown === "viability") steps.splice(at, 0, element("b", {}, "100")); // so that it is seen where untreated wells are
    made.push(element("span", { className: "scale" }, "0", element("span", {}, ...steps), shown === "viability" ? say("and_more", { n: written }) : written));
  }
  for (const state of states) {
    if (shown !== "state" && state === "final") continue;
    const mark = element("span", { className: "well", ariaHidden: "true" }, MARKS[state] || "");
    mark.dataset.state = state;
    if (state === "provisional") mark.classList.add("known");
    if (shown === "state" && ["final", "provisional"].includes(state)) mark.style.background = "var(--ready)";
    made.push(element("span", { className: "one" }, mark, STATES[state]));
  }
  if (flagged) made.push(element("span", { className: "one" }, element("span", { className: "well flagged" }), say("look_at_it")));
  if (failed) made.push(element("span", { className: "one" }, say("images_failed")));
  if (plate.wells.some((well) => well.letter)) made.push(element("span", { className: "one" }, say("controls_marks")));
  return made;
}

$("grid").addEventListener("keydown", (event) => {
  const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
  const from = event.target.closest(".well");
  if (!step || !from) return;
  event.preventDefault();
  let row = Number(from.dataset.row), column = Number(from.dataset.column);
  for (;;) {
    row += step[0]; column += step[1];
    if (row < 0 || column < 0 || row >= plate.rows.length || column >= plate.columns) return;
    const to = $("grid").querySelector(`.well[data-row="${row}"][data-column="${column}"]`);
    if (to) { from.tabIndex = -1; to.tabIndex = 0; to.focus(); return; }
  }
});
$("grid").addEventListener("click", (event) => {
  const cell = event.target.closest(".well");
  if (cell) openWell(cell.dataset.well);
});
$("tabs").addEventListener("change", () => plate && showPlate());
function choosePlate(name) {
  chosenPlate = name;
  $("plates").value = name;
  closeWell();
  refreshPlate();
  showOrders();
}
$("plates").addEventListener("change", (event) => choosePlate(event.target.value));
new ResizeObserver(layOut).observe($("room"));

// -- pictures -------------------------------------------------------------------------------------------------------

async function showPicture(image, none, path, tag = "") {
  const answer = await ask(path, { headers: tag ? { "if-none-match": tag } : {} });
  if (answer.status === 304) return tag;
  none.hidden = answer.status === 200;
  image.hidden = answer.status !== 200;
  if (answer.status !== 200) return "";
  const before = image.src;
  image.src = URL.createObjectURL(await answer.blob());
  if (before) URL.revokeObjectURL(before);
  image.dataset.of = answer.headers.get("x-stack").split("/")[1];
  image.alt = say("picture_of", { stack: answer.headers.get("x-stack"), n: answer.headers.get("x-slices") });
  return answer.headers.get("etag");
}

let liveTag = "";
const refreshLive = once(async () => {
  if (document.hidden || open) return;
  liveTag = await showPicture($("live"), $("live-none"), "/page/live", liveTag);
  $("live-of").textContent = $("live").hidden ? "" : $("live").dataset.of;
  await sleep(700);
});
document.addEventListener("visibilitychange", () => { refreshLive(); refreshPlate(); });

// -- one well -------------------------------------------------------------------------------------------------------

function openWell(name) {
  closeWell();
  open = { plate: plate.plate, well: name, stack: null, view: null, tag: "" };
  $(`well-${name}`)?.setAttribute("aria-selected", "true");
  $("slice").value = -1;
  $("well-picture").hidden = true;
  $("now").hidden = true;
  $("well").hidden = false;
  refreshWell();
  $("well-title").textContent = name;
  $("well-title").focus({ preventScroll: true });
  const panel = $("well").getBoundingClientRect(); // on a phone it lies below the plate
  if (panel.top > innerHeight - 120) $("well").scrollIntoView({ block: "start" });
}

function closeWell() {
  if (!open) return;
  const cell = $(`well-${open.well}`);
  cell?.removeAttribute("aria-selected");
  open = null;
  $("well").hidden = true;
  $("now").hidden = false;
  refreshLive();
  cell?.focus();
}

const refreshWell = once(async () => {
  if (!open) return;
  const here = open;
  const view = await json(`/page/well?plate=${encodeURIComponent(here.plate)}&well=${here.well}`);
  if (here !== open) return;
  open.view = view;
  showWell();
  await showSlice();
  await showStripes();
});

function stackShown() {
  const stacks = open.view.stacks;
  return stacks.find((one) => one.stack === open.stack) || stacks[stacks.length - 1];
}

const figureWords = (name, value) => (name === "trust" && WORDS[`trusted-${value}`]) || told(value);

function showWell() {
  const view = open.view, stack = stackShown();
  $("well-title").textContent = `${view.well}  ${told(view.treatment)}${view.patient ? `, ${view.patient}` : ""}`;
  $("well-words").textContent = [STATES[stack ? stack.state : view.state], ...(stack && stack.total ? [say("slices", stack)] : [])].join(", ");
  const flags = [...(stack ? stack.flags : []), ...view.flags].map((flag) => element("p", { className: "flag", textContent: finding(flag) }));
  if (view.excluded) flags.unshift(element("p", { className: "flag", textContent: say("excluded", { why: view.excluded }) }));
  if (stack && stack.reason) flags.unshift(element("p", { className: `flag ${BAD.includes(stack.state) ? "bad" : LEFT_OUT.includes(stack.state) ? "quiet" : ""}`, textContent: told(stack.reason) }));
  $("well-flags").replaceChildren(...flags);
  pairs($("figures"), (stack ? stack.figures : []).map(([name, value]) => [say(`column_${name}`), figureWords(name, value), say(`column_${name}_meaning`)]));
  $("map-head").hidden = !view.notes.length;
  pairs($("map-notes"), view.notes);
  $("history").replaceChildren(...(stack ? stack.history : []).map((one) => element("li", {},
    element("time", { textContent: moment(one.when_s) }), say("change", { ...one, status: STATES[one.status] || one.status, why: told(one.why) }))));
  $("slice").max = stack && stack.n_z ? stack.n_z - 1 : -1;
  $("slice").disabled = !(stack && stack.done);
  $("stacks").hidden = view.stacks.length < 2;
  $("stacks").replaceChildren(...view.stacks.map((one) => element("option", { value: one.stack, textContent: say("stack_n", { n: one.stack }) })));
  if (stack) $("stacks").value = stack.stack;
  $("viewers").replaceChildren(...me.viewers.map((template) => [template, viewerLink(template)]).filter(([, link]) => link).map(([template, href]) =>
    element("a", { href, target: "_blank", rel: "noopener noreferrer", textContent: say("open_in", { where: new URL(template).hostname }) })));
  showOrders();
}

const zarrUrl = () => `${location.origin}/zarr/${open.view.path}/${stackShown() ? stackShown().stack : 0}`;

// Where a viewer opens the stack that is shown; empty where it needs to know more of the image than there is yet.
function viewerLink(template) {
  const state = stackShown()?.neuroglancer;
  if (template.includes("{neuroglancer}") && !state) return "";
  const opened = encodeURIComponent(JSON.stringify(state || null).replaceAll("{url}", zarrUrl()));
  return template.replaceAll("{neuroglancer}", opened).replaceAll("{url}", encodeURIComponent(zarrUrl()));
}

const showSlice = once(async () => {
  if (!open || !open.view) return;
  const stack = stackShown(), z = Number($("slice").value);
  $("slice-words").textContent = z < 0 ? say("all_slices") : say("slice_of", { n: z + 1, total: stack.n_z });
  $("slice").ariaValueText = $("slice-words").textContent;
  if (!stack || !stack.done) {
    $("well-picture").hidden = true;
    $("well-none").hidden = false;
    $("well-none").textContent = say("not_imaged");
    return;
  }
  const outlines = $("outlines").checked ? "" : "&outlines=0";
  const path = `/page/picture?plate=${encodeURIComponent(open.plate)}&well=${open.well}&stack=${stack.stack}${z < 0 ? "" : `&z=${z}`}${outlines}`;
  try {
    open.tag = await showPicture($("well-picture"), $("well-none"), path, open.path === path ? open.tag : "");
    open.path = path;
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    $("well-picture").hidden = true;
    $("well-none").hidden = false;
    $("well-none").textContent = error.message;
  }
});
const showStripes = once(async () => {
  if (!open || !open.view) return;
  const stack = stackShown();
  $("stripes").hidden = !(stack && stack.raw);
  if ($("stripes").hidden) return;
  const path = `/page/stripes?plate=${encodeURIComponent(open.plate)}&well=${open.well}&stack=${stack.stack}`;
  const answer = await ask(path, { headers: open.stripes ? { "if-none-match": open.stripes } : {} });
  if (answer.status === 304) return;
  const image = $("stripes-plot"), before = image.src;
  image.hidden = answer.status !== 200;
  $("stripes-none").textContent = image.hidden ? say("after_reconstruction") : "";
  if (image.hidden) return;
  image.src = URL.createObjectURL(await answer.blob());
  if (before) URL.revokeObjectURL(before);
  image.alt = say("stripes_alt");
  open.stripes = answer.headers.get("etag");
});
$("slice").addEventListener("input", showSlice);
$("outlines").addEventListener("change", showSlice);
$("stacks").addEventListener("change", (event) => { open.stack = Number(event.target.value); open.stripes = ""; showWell(); showSlice(); showStripes(); });
$("close").addEventListener("click", closeWell);
document.addEventListener("keydown", (event) => { if (event.key === "Escape" && !$("ask").open) closeWell(); });
$("copy").addEventListener("click", async () => {
  await navigator.clipboard.writeText(zarrUrl());
  note(say("copied", { what: zarrUrl() }));
});

// -- orders ---------------------------------------------------------------------------------------------------------

// A note that goes by itself; what is "bad" or "stays" is there until somebody has seen it.
function note(words, bad = false, undo = null) {
  const made = element("div", { className: `note${bad ? ` ${bad === true ? "bad" : bad}` : ""}` }, element("span", { textContent: words }));
  if (undo) made.append(element("button", { type: "button", className: "undo", textContent: say("undo"), onclick: () => { made.remove(); undo(); } }));
  made.append(element("button", { type: "button", textContent: "×", ariaLabel: say("dismiss"), onclick: () => made.remove() }));
  $("notes").append(made);
  while ($("notes").children.length > 4) $("notes").firstChild.remove();
  if (!bad) setTimeout(() => made.remove(), undo ? 30000 : 6000);
}

// An order; `undo` is what takes it back, offered beside what was done.
async function order(path, body, button, undo = null) {
  const focused = button && document.activeElement === button; // which it is no more once it is disabled
  if (button) button.disabled = true;
  try {
    const answer = await ask(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
    const done = await answer.json();
    note(told(done.done) || say("submitted", done), false, undo);
    refreshPlate();
    refreshQueue();
  } catch (error) {
    if (error instanceof Refused) note(error.do ? say("refused", { what: error.message, do: error.do }) : error.message, true);
    else note(say("no_answer"), true);
  } finally {
    if (button) button.disabled = false;
    if (focused && document.activeElement === document.body) button.focus();
  }
}

// The text that was written, or null where the answer is no. `check` says what is wrong with it, and it is asked again.
function question({ title, words, label, yes, secret = false, text: before = "", check = () => "", fields = "" }) {
  const dialog = $("ask"), text = $("ask-text"), wrong = $("ask-wrong");
  $("ask-title").textContent = title;
  $("ask-words").textContent = words;
  $("ask-label").textContent = label;
  $("ask-label").hidden = text.hidden = !label;
  $("ask-yes").textContent = yes;
  $("ask-label-fields").hidden = fields !== "label";
  $("ask-edit-fields").hidden = fields !== "edit";
  dialog.classList.toggle("wide", fields === "edit");
  wrong.hidden = true;
  text.value = before;
  text.type = secret ? "password" : "text";
  dialog.showModal();
  (secret ? text : { label: $("label-role"), edit: $("edit-config") }[fields] || $("ask-no")).focus();
  return new Promise((answer) => {
    const end = (value) => { $("ask-yes").onclick = $("ask-no").onclick = dialog.oncancel = text.onkeydown = null; dialog.close(); answer(value); };
    const agree = () => {
      wrong.textContent = check(text.value);
      wrong.hidden = !wrong.textContent;
      if (wrong.hidden) end(text.value);
    };
    $("ask-yes").onclick = agree;
    $("ask-no").onclick = () => end(null);
    dialog.oncancel = (event) => { event.preventDefault(); end(null); };
    text.onkeydown = (event) => { if (event.key === "Enter") agree(); };
  });
}

const here = () => (status ? status.plate || "" : "");
$("pause").onclick = (event) => order("/v1/run:pause", { plate: here(), when: "PAUSE_WHEN_NOW" }, event.target);
$("pause-after").onclick = (event) => order("/v1/run:pause", { plate: here(), when: "PAUSE_WHEN_AFTER_WELL" }, event.target);
$("resume").onclick = (event) => order("/v1/run:resume", { plate: here() }, event.target);
$("start").onclick = (event) => order(`/v1/plates/${encodeURIComponent(chosen())}:start`, {}, event.target);
$("abort").onclick = async (event) => {
  const words = { title: say("abort_title", { plate: here() }), label: say("why_rows"), yes: say("abort_yes"), words: say("abort_words") };
  const reason = await question(words);
  if (reason !== null) order("/v1/run:abort", { plate: here(), reason }, event.target);
};

// -- colours --------------------------------------------------------------------------------------------------------

function setTheme(name) {
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  $("theme").value = name;
}

$("theme").addEventListener("change", (event) => { localStorage.setItem("theme", event.target.value); setTheme(event.target.value); });
setTheme(["light", "dark", "red"].includes(localStorage.getItem("theme")) ? localStorage.getItem("theme") : "auto");

// -- begin ----------------------------------------------------------------------------------------------------------

async function whoAmI() {
  me = await json("/page/me");
  $("who").textContent = `${me.data_dir} · ${me.name}, ${say(`who_${me.role}`)} · ${say("footer_times", { zone: zone() })}`;
  if (status) showOrders();
}

// Once the other scripts are there: they are deferred, too.
addEventListener("DOMContentLoaded", () => {
  if (location.hash.slice(1) in VIEWS) showView(location.hash.slice(1));
  whoAmI().catch(() => {});
  follow("/v1/status:watch?period_s=0.1", onStatus); // one stream a tab: a browser opens six to a place at most
  refreshPlates();
  setInterval(showLost, 1000);
});

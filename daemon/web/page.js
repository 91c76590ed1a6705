// The page's only script. Status and rows come as Server-Sent Events over fetch, because an EventSource can send no
// token. It shows what the daemon says and nothing else; where the daemon falls silent it says that.
"use strict";

const $ = (id) => document.getElementById(id);
const UNKNOWN = "—";
const SILENT_MS = 12000; // the daemon says something each second while it runs
const STATES = {
  queued: "to come", acquiring: "being imaged", stored: "waiting for the model", scoring: "being scored",
  stopped: "stopped", provisional: "provisional", final: "final", failed: "failed", incomplete: "incomplete",
  skipped: "skipped", aborted: "aborted",
};
const BAD = ["failed", "incomplete"], LEFT_OUT = ["skipped", "aborted"]; // by themselves, and by a person
const MARKS = { failed: "×", incomplete: "×", skipped: "–", aborted: "–" };
let status = null, plate = null, me = { role: "none", viewers: [] }, chosenPlate = "", open = null;
let lastHeard = Date.now(), connected = false;

// -- asking ---------------------------------------------------------------------------------------------------------

class Refused extends Error {
  constructor(code, problem) { super(problem.title || `error ${code}`); this.code = code; this.do = problem.do || ""; }
}

function headers(more) {
  const token = sessionStorage.getItem("token");
  return token ? { ...more, authorization: `Bearer ${token}` } : more;
}

async function ask(path, options = {}) {
  const answer = await fetch(path, { ...options, headers: headers(options.headers || {}), cache: "no-store" });
  if (answer.ok || answer.status === 304) return answer;
  if (answer.status === 401) await askForToken();
  let problem = {};
  try { problem = await answer.json(); } catch { /* not from the daemon */ }
  throw new Refused(answer.status, problem);
}

const json = async (path) => (await ask(path)).json();

let asking = null; // one question for a token at a time, however many requests were refused
function askForToken() {
  asking ??= question({
    title: "A token is needed", words: "`spheroidd token create NAME --role operator` makes one.",
    label: "Token", yes: "Use it", secret: true,
  }).then((token) => { asking = null; if (token) { sessionStorage.setItem("token", token.trim()); whoAmI(); } });
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
    lost.textContent = `No connection to the daemon since ${since}: what stands here is old. It is tried again.`;
    $("state").dataset.state = "lost";
    $("state").textContent = "no connection";
  }
}

// -- words ----------------------------------------------------------------------------------------------------------

function duration(seconds) {
  if (seconds === undefined || seconds < 0) return UNKNOWN;
  const minutes = Math.floor(Math.round(seconds) / 60), hours = Math.floor(minutes / 60);
  if (hours) return `${hours} h ${String(minutes % 60).padStart(2, "0")} min`;
  return minutes ? `${minutes} min ${String(Math.round(seconds) % 60).padStart(2, "0")} s` : `${Math.round(seconds)} s`;
}

const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hour12: false });
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

function onStatus(found) {
  const before = status;
  status = found;
  showLost();
  showState();
  showAlarms();
  showFacts();
  const moved = !before || JSON.stringify(before.wells) !== JSON.stringify(found.wells) || before.well !== found.well ||
    before.plate !== found.plate || before.instance !== found.instance;
  refreshPlate(); // asks whether anything changed, which costs next to nothing where nothing did
  if (!before || before.stack_slices_done !== found.stack_slices_done || moved) refreshLive();
  if (!before || before.plate !== found.plate || before.state !== found.state) refreshPlates();
}

function showState() {
  if ($("lost").hidden) {
    $("state").dataset.state = status.state;
    $("state").textContent = status.state;
  }
  const done = Number(status.slices_done || 0), total = Number(status.slices_total || 0);
  $("run-bar").max = total || 1;
  $("run-bar").value = done;
  const words = total ? [`${grouped(done)} of ${grouped(total)} slices`] : [];
  if (status.state === "running" && status.slices_per_s) words.push(`${status.slices_per_s.toFixed(1)} slices/s`);
  if (status.state === "running" && status.eta_s > 0) words.push(`${duration(status.eta_s)} left, until ${clock(Date.now() / 1000 + status.eta_s)}`);
  $("run-words").textContent = words.join("  ·  ") || "\u00a0";
  document.title = `${status.faults ? "! " : ""}${status.state} ${status.plate || ""}`.trim();
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
}

function showAlarms() {
  const alarms = (status.faults || []).map((fault) => element("article", { className: "alarm" },
    element("span", { className: "mark", textContent: "▲", ariaHidden: "true" }),
    element("b", { textContent: (fault.where ? `${fault.where}: ` : "") + fault.what }),
    element("time", { textContent: fault.raised_s ? `since ${clock(fault.raised_s)}` : "" }),
    element("span", { className: "do", textContent: fault.do ? `To do: ${fault.do}` : "" })));
  const box = $("alarms"), key = JSON.stringify(status.faults || []);
  if (box.dataset.key !== key) { box.replaceChildren(...alarms); box.dataset.key = key; layOut(); }
}

function showFacts() {
  const here = status.well ? `${status.well}${status.stack ? `, stack ${status.stack}` : ""}` : "";
  $("now-title").textContent = here ? `Now: ${here}` : RUNS.includes(status.state) ? "Between two wells" : "No well under way";
  const done = status.stack_slices_done, total = status.stack_slices_total;
  $("stack-bar").max = total || 1;
  $("stack-bar").value = done || 0;
  $("stack-words").textContent = total ? `Slice ${done} of ${total}` : "\u00a0";
  const facts = [["Worker", (status.worker || UNKNOWN).replace(`${status.plate}/`, "").replace(/\/0$/, "")]];
  if (plate && plate.latency_s) facts.push(["Row after last slice, median (longest)", plate.latency_s.map((s) => `${s.toFixed(1)} s`).join(" (") + ")"]);
  facts.push(["Disk free", status.disk_free_gb === undefined ? UNKNOWN : `${status.disk_free_gb.toFixed(status.disk_free_gb < 10 ? 1 : 0)} GB`]);
  if (status.scrub) {
    const ended = status.scrub.finished_s, share = status.scrub.share_done, damaged = status.scrub.damaged;
    const words = [ended === undefined ? "no pass has ended" : `${new Date(1000 * ended).toLocaleDateString()}`];
    if (share !== undefined) words.push(`${Math.floor(100 * share)} % of the next pass`);
    words.push(damaged ? `${damaged} stacks damaged` : "nothing damaged");
    facts.push(["Stored images read again", words.join(", ")]);
  }
  if (plate && plate.quality) facts.push(["Plate quality", plate.quality.verdict + (plate.quality.z_prime === null ? "" : `, Z′ ${plate.quality.z_prime.toFixed(2)}`)]);
  if (status.control) facts.push(["Controls reserved by", `${status.control.holder || "somebody"} until ${clock(status.control.expires_s)}`]);
  pairs($("facts"), facts);
}

// -- the plate ------------------------------------------------------------------------------------------------------

let known = [];
const chosen = () => chosenPlate || (status && status.plate) || (known.length ? known[known.length - 1].name : "");

const refreshPlates = once(async () => {
  known = (await json("/v1/plates")).plates || [];
  const names = known.map((one) => one.name);
  const options = names.map((name) => element("option", { value: name, textContent: name }));
  if (options.length) $("plates").replaceChildren(...options);
  if (chosenPlate && !names.includes(chosenPlate)) chosenPlate = "";
  $("plates").value = chosen();
  $("plates").disabled = names.length < 2;
  showOrders();
  refreshPlate();
});

const refreshPlate = once(async () => {
  const name = chosen();
  $("nothing").hidden = Boolean(name);
  if (!name) {
    plate = null;
    $("grid").replaceChildren();
    $("nothing").textContent = "No plate was run here yet.\n`spheroidd submit` hands one in.";
    return;
  }
  try {
    const tag = plate && plate.plate === name ? plate.tag : "";
    const answer = await ask(`/page/plate?plate=${encodeURIComponent(name)}`, { headers: tag ? { "if-none-match": tag } : {} });
    if (answer.status === 304) return;
    plate = await answer.json();
    plate.tag = answer.headers.get("etag");
    $("nothing").hidden = true;
    showPlate();
  } catch (error) {
    if (!(error instanceof Refused) || error.code !== 400) throw error;
    plate = null; // submitted, and not begun yet
    $("grid").replaceChildren();
    $("nothing").hidden = false;
    $("nothing").textContent = `Plate ${name} is submitted and was not started yet.`;
  }
  if (status) showFacts();
  if (open && open.plate === name) refreshWell();
});

function showPlate() {
  const grid = $("grid"), shape = `${plate.plate}/${plate.rows.length}x${plate.columns}/${plate.wells.length}`;
  if (grid.dataset.shape !== shape) buildGrid(grid, shape);
  const shown = document.querySelector('input[name="shown"]:checked').value;
  const counts = {};
  for (const well of plate.wells) {
    counts[well.state] = (counts[well.state] || 0) + 1;
    showCell($(`well-${well.well}`), well, shown);
  }
  const order = Object.keys(STATES).filter((state) => counts[state]);
  $("tally").textContent = order.map((state) => `${counts[state]} ${STATES[state]}`).join(", ");
  showLegend(shown, order);
}

function showCell(cell, well, shown) {
  const mark = well.excluded ? "×" : MARKS[well.state] || (well.trust === "fail" ? "!" : "");
  const figure = shown === "state" || mark ? null : well[shown];
  const text = mark || (figure ? figure[0] : "");
  if (cell.firstChild.data !== text) cell.firstChild.data = text;
  cell.dataset.state = well.state;
  cell.classList.toggle("known", Boolean(figure));
  cell.classList.toggle("flagged", well.flagged);
  cell.classList.toggle("excluded", well.excluded);
  const done = shown === "state" && ["final", "provisional"].includes(well.state) && !well.excluded;
  cell.style.background = figure ? figure[1] : done ? "var(--ready)" : "";
  cell.style.color = figure ? figure[2] : "";
  const words = `${well.well}: ${figure ? `${figure[0]}${shown === "viability" ? " %" : ""}, ` : ""}${well.words}`;
  if (cell.title !== words) { cell.title = words; cell.ariaLabel = words; }
}

function buildGrid(grid, shape) {
  grid.dataset.shape = shape;
  const wells = new Map(plate.wells.map((well) => [`${well.row}/${well.column}`, well]));
  const heads = Array.from({ length: plate.columns }, (_, n) => element("span", { className: "name", textContent: n + 1 }));
  const lines = [element("div", { className: "line", ariaHidden: "true" }, element("span"), ...heads)];
  plate.rows.forEach((name, row) => {
    const line = element("div", { className: "line", role: "row" }, element("span", { className: "name", textContent: name }));
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
  const first = grid.querySelector(".well");
  if (first) first.tabIndex = 0;
  layOut();
}

// As large as the room allows.
function layOut() {
  if (!plate) return;
  const room = $("room").getBoundingClientRect(), grid = $("grid");
  const cell = Math.max(7, Math.floor(Math.min((room.width - 28) / plate.columns, (room.height - 20) / plate.rows.length, 104)));
  grid.style.gridTemplateColumns = `26px repeat(${plate.columns}, ${cell}px)`;
  grid.style.gridTemplateRows = `18px repeat(${plate.rows.length}, ${cell}px)`;
  grid.style.fontSize = `${Math.max(0, Math.min(20, cell * 0.36))}px`;
  grid.classList.toggle("tiny", cell < 20);
  for (const letter of grid.getElementsByClassName("letter")) letter.hidden = cell < 34;
  for (const well of grid.getElementsByClassName("well")) well.style.fontSize = cell < 20 ? "0" : "inherit";
}

function showLegend(shown, states) {
  const marks = plate.wells.map((well) => [well.flagged, well.trust === "fail"]);
  const key = `${shown}/${states}/${plate.tops[shown]}/${marks.some(([flagged]) => flagged)}/${marks.some(([, fail]) => fail)}`;
  if ($("legend").dataset.key === key) return;
  $("legend").dataset.key = key;
  const made = [];
  if (shown !== "state") {
    const steps = plate.scale.map((colour) => { const step = element("i"); step.style.background = colour; return step; });
    const top = plate.tops[shown];
    made.push(element("span", { className: "scale" }, "0", element("span", {}, ...steps), `${top < 10 ? top.toFixed(1) : Math.round(top)}${shown === "viability" ? " % and more" : ""}`));
  }
  for (const state of states) {
    if (shown !== "state" && ["final"].includes(state)) continue;
    const mark = element("span", { className: "well", ariaHidden: "true" }, MARKS[state] || "");
    mark.dataset.state = state;
    if (state === "provisional") mark.classList.add("known");
    if (shown === "state" && ["final", "provisional"].includes(state)) mark.style.background = "var(--ready)";
    made.push(element("span", { className: "one" }, mark, STATES[state]));
  }
  if (plate.wells.some((well) => well.flagged)) made.push(element("span", { className: "one" }, element("span", { className: "well flagged" }), "look at it"));
  if (plate.wells.some((well) => well.trust === "fail")) made.push(element("span", { className: "one" }, "! images failed, no viability"));
  if (plate.wells.some((well) => well.letter)) made.push(element("span", { className: "one" }, "U untreated, K killed"));
  $("legend").replaceChildren(...made);
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
$("plates").addEventListener("change", (event) => { chosenPlate = event.target.value; closeWell(); refreshPlate(); showOrders(); });
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
  image.alt = `Stack ${answer.headers.get("x-stack")}, ${answer.headers.get("x-slices")} slices, green living and magenta dead cells`;
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

function showWell() {
  const view = open.view, stack = stackShown();
  $("well-title").textContent = `${view.well}  ${view.treatment}${view.patient ? `, ${view.patient}` : ""}`;
  $("well-words").textContent = `${STATES[stack ? stack.state : view.state]}${stack && stack.total ? `, ${stack.done} of ${stack.total} slices` : ""}`;
  const flags = [...(stack ? stack.flags : []), ...view.flags].map((flag) => element("p", { className: "flag", textContent: `${flag.what} ${flag.do}` }));
  if (view.excluded) flags.unshift(element("p", { className: "flag", textContent: `Excluded: ${view.excluded}` }));
  if (stack && stack.reason) flags.unshift(element("p", { className: `flag ${BAD.includes(stack.state) ? "bad" : LEFT_OUT.includes(stack.state) ? "quiet" : ""}`, textContent: stack.reason }));
  $("well-flags").replaceChildren(...flags);
  pairs($("figures"), stack ? stack.figures : []);
  $("notes-head").hidden = !view.notes.length;
  pairs($("notes"), view.notes);
  $("history").replaceChildren(...(stack ? stack.history : []).map((one) => element("li", {},
    element("time", { textContent: one.when }), `${one.status}, viability ${one.from} → ${one.to}: ${one.why}`)));
  $("slice").max = stack && stack.n_z ? stack.n_z - 1 : -1;
  $("slice").disabled = !(stack && stack.done);
  $("stacks").hidden = view.stacks.length < 2;
  $("stacks").replaceChildren(...view.stacks.map((one) => element("option", { value: one.stack, textContent: `stack ${one.stack}` })));
  if (stack) $("stacks").value = stack.stack;
  $("viewers").replaceChildren(...me.viewers.map((template) => element("a", {
    href: template.replace("{url}", encodeURIComponent(zarrUrl())), target: "_blank", rel: "noopener noreferrer",
    textContent: `Open in ${new URL(template).hostname}` })));
  showOrders();
}

const zarrUrl = () => `${location.origin}/zarr/${open.view.path}/${stackShown() ? stackShown().stack : 0}`;

const showSlice = once(async () => {
  if (!open || !open.view) return;
  const stack = stackShown(), z = Number($("slice").value);
  $("slice-words").textContent = z < 0 ? "All slices" : `Slice ${z + 1} of ${stack.n_z}`;
  $("slice").ariaValueText = $("slice-words").textContent;
  if (!stack || !stack.done) {
    $("well-picture").hidden = true;
    $("well-none").hidden = false;
    $("well-none").textContent = "Not imaged yet";
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
  $("stripes-none").textContent = image.hidden ? "Known once the stack is reconstructed" : "";
  if (image.hidden) return;
  image.src = URL.createObjectURL(await answer.blob());
  if (before) URL.revokeObjectURL(before);
  image.alt = "Modulation and contrast to noise of the stripes by depth";
  open.stripes = answer.headers.get("etag");
});
$("slice").addEventListener("input", showSlice);
$("outlines").addEventListener("change", showSlice);
$("stacks").addEventListener("change", (event) => { open.stack = Number(event.target.value); open.stripes = ""; showWell(); showSlice(); showStripes(); });
$("close").addEventListener("click", closeWell);
document.addEventListener("keydown", (event) => { if (event.key === "Escape" && !$("ask").open) closeWell(); });
$("copy").addEventListener("click", async () => {
  await navigator.clipboard.writeText(zarrUrl());
  note(`Copied: ${zarrUrl()}`);
});

// -- orders ---------------------------------------------------------------------------------------------------------

function note(words, bad = false) {
  const made = element("div", { className: `note${bad ? " bad" : ""}` }, element("span", { textContent: words }));
  made.append(element("button", { type: "button", textContent: "×", ariaLabel: "Dismiss", onclick: () => made.remove() }));
  $("notes").append(made);
  while ($("notes").children.length > 4) $("notes").firstChild.remove();
  if (!bad) setTimeout(() => made.remove(), 6000);
}

async function order(path, body, button) {
  const focused = document.activeElement === button; // which it is no more once it is disabled
  button.disabled = true;
  try {
    const answer = await ask(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
    note((await answer.json()).done);
  } catch (error) {
    if (error instanceof Refused) note(`${error.message}${error.do ? `; ${error.do}` : ""}`, true);
    else note("The daemon did not answer; look at its state before you try again", true);
  } finally {
    button.disabled = false;
    if (focused && document.activeElement === document.body) button.focus();
  }
}

// The text that was written, or null where the answer is no.
function question({ title, words, label, yes, secret = false }) {
  const dialog = $("ask"), text = $("ask-text");
  $("ask-title").textContent = title;
  $("ask-words").textContent = words;
  $("ask-label").textContent = label;
  $("ask-yes").textContent = yes;
  text.value = "";
  text.type = secret ? "password" : "text";
  dialog.showModal();
  (secret ? text : $("ask-no")).focus();
  return new Promise((answer) => {
    const end = (value) => { $("ask-yes").onclick = $("ask-no").onclick = dialog.oncancel = text.onkeydown = null; dialog.close(); answer(value); };
    $("ask-yes").onclick = () => end(text.value);
    $("ask-no").onclick = () => end(null);
    dialog.oncancel = (event) => { event.preventDefault(); end(null); };
    text.onkeydown = (event) => { if (event.key === "Enter") end(text.value); };
  });
}

const here = () => (status ? status.plate || "" : "");
$("pause").onclick = (event) => order("/v1/run:pause", { plate: here(), when: "PAUSE_WHEN_NOW" }, event.target);
$("pause-after").onclick = (event) => order("/v1/run:pause", { plate: here(), when: "PAUSE_WHEN_AFTER_WELL" }, event.target);
$("resume").onclick = (event) => order("/v1/run:resume", { plate: here() }, event.target);
$("start").onclick = (event) => order(`/v1/plates/${encodeURIComponent(chosen())}:start`, {}, event.target);
$("abort").onclick = async (event) => {
  const reason = await question({
    title: `Abort plate ${here()}?`, label: "Why (it stands in the wells' rows)", yes: "Abort the plate",
    words: "No further slice is taken. What is stored is still scored; the wells that are left stay without a result.",
  });
  if (reason !== null) order("/v1/run:abort", { plate: here(), reason }, event.target);
};
$("next").onclick = (event) => order("/v1/run/wells:reorder", { plate: open.plate, wells: [open.well] }, event.target);
$("skip").onclick = async (event) => {
  const { plate: name, well } = open;
  const reason = await question({
    title: `Skip well ${well}?`, label: "Why (it stands in the well's row)", yes: `Skip ${well}`,
    words: "It gets no result. If it is being imaged, it ends where it is.",
  });
  if (reason !== null) order(`/v1/run/wells/${well}:skip`, { plate: name, reason }, event.target);
};
$("repeat").onclick = async (event) => {
  const { plate: name, well } = open;
  const yes = await question({
    title: `Image well ${well} once more?`, label: "", yes: `Repeat ${well}`,
    words: "It is taken as a further stack. What was imaged before stays.",
  });
  if (yes !== null) order(`/v1/run/wells/${well}:repeat`, { plate: name }, event.target);
};

// -- begin ----------------------------------------------------------------------------------------------------------

async function whoAmI() {
  me = await json("/page/me");
  $("who").textContent = `${me.data_dir} · ${me.name}, ${me.role}`;
  if (status) showOrders();
}

whoAmI().catch(() => {});
follow("/v1/status:watch?period_s=0.1", onStatus); // one stream a tab: a browser opens six to a place at most
refreshPlates();
setInterval(showLost, 1000);

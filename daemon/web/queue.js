// The queue of plates: what is run, what waits in its order, what is finished with its verdict. A plate that has ended is
// told wherever the page stands.
"use strict";

let queued = null;

const refreshQueue = once(async () => {
  const found = await json("/v1/queue");
  const before = queued;
  queued = { plates: found.plates || [], goesOn: Boolean(found.goes_on), why: found.why || "" };
  if (before) tellEnds(before.plates);
  if (JSON.stringify(before) !== JSON.stringify(queued) || $("queue").dataset.role !== me.role) showQueue();
});

function tellEnds(before) {
  const over = new Set(before.filter((one) => one.state === "finished").map((one) => `${one.plate}/${one.ended_s}`));
  for (const one of queued.plates) {
    if (one.state === "finished" && !over.has(`${one.plate}/${one.ended_s}`)) note(say("plate_finished", { ...one, verdict: told(one.verdict) }), "stays");
  }
}

function showQueue() {
  const may = me.role === "operator" || me.role === "admin";
  const waiting = queued.plates.filter((one) => one.state === "waiting").map((one) => one.plate);
  const words = queued.plates.length ? say(queued.goesOn ? "queue_goes_on" : "queue_waits") : say("queue_empty");
  $("queue-words").textContent = queued.why ? say("queue_why", { words, why: told(queued.why) }) : words;
  $("queue-start").hidden = !may || queued.goesOn || !waiting.length;
  $("queue-pause").hidden = !may || !queued.goesOn;
  const focused = document.activeElement && $("queue").contains(document.activeElement) ? document.activeElement.dataset.what : null;
  $("queue").replaceChildren(...queued.plates.map((one) => queueItem(one, waiting, may)));
  $("queue").dataset.role = me.role;
  if (focused) $("queue").querySelector(`[data-what="${CSS.escape(focused)}"]`)?.focus();
}

function queueItem(one, waiting, may) {
  const facts = [one.held ? say("queue_held") : say(`queue_${one.state}`)];
  if (one.n_wells !== undefined) facts.push(say("queue_wells", { n: one.n_wells }));
  if (one.submitted_by) facts.push(say("queue_by", { who: one.submitted_by }));
  if (one.started_s && !one.verdict) facts.push(say("since", { time: moment(one.started_s) })); // a verdict has its times
  const look = element("button", { type: "button", className: "look", textContent: one.plate, ariaLabel: say("queue_look", one) });
  look.onclick = () => { choosePlate(one.plate); showView("plate"); };
  const item = element("li", { className: one.held ? "held" : "" }, look, element("span", { className: "facts", textContent: facts.join(" · ") }));
  if (one.verdict) item.append(element("p", { className: "said", textContent: told(one.verdict) }));
  if (may && one.state !== "running") item.append(element("div", { className: "orders small" }, ...queueButtons(one, waiting)));
  item.dataset.state = one.state;
  return item;
}

function queueButtons(one, waiting) {
  const place = waiting.indexOf(one.plate), path = (verb) => `/v1/plates/${encodeURIComponent(one.plate)}:${verb}`;
  const button = (what, act, disabled = false) => {
    const made = element("button", { type: "button", textContent: say(`queue_${what}`), ariaLabel: say(`queue_${what}_of`, one), disabled });
    made.dataset.what = `${what} ${one.plate}`;
    made.onclick = () => act(made);
    return made;
  };
  const move = (by) => (made) => {
    const plates = [...waiting];
    plates.splice(place, 1);
    plates.splice(place + by, 0, one.plate);
    order("/v1/queue:arrange", { plates }, made);
  };
  const made = [];
  if (one.state === "waiting") {
    made.push(button("up", move(-1), place === 0), button("down", move(1), place === waiting.length - 1));
    made.push(one.held ? button("release", (on) => order(path("hold"), { held: false }, on)) : button("hold", (on) => order(path("hold"), { held: true }, on)));
    made.push(button("edit", (on) => editPlate(one.plate, on)));
  }
  made.push(button("remove", (on) => removePlate(one.plate, on)));
  return made;
}

async function removePlate(name, button) {
  const yes = await question({ title: say("remove_title", { plate: name }), words: say("remove_words"), label: "", yes: say("remove_yes", { plate: name }) });
  if (yes !== null) order(`/v1/plates/${encodeURIComponent(name)}:remove`, {}, button);
}

// `change` makes another configuration of the one that was handed in, or null, and then `why` is told.
async function editPlate(name, button, change = (toml) => toml, why = "") {
  const before = await json(`/v1/submission?plate=${encodeURIComponent(name)}`);
  const config = change(before.config_toml || "");
  if (config === null) { note(why, true); return; }
  $("edit-config").value = config;
  $("edit-map").value = before.plate_map_csv || "";
  const yes = await question({ title: say("edit_title", { plate: name }), words: say("edit_words"), label: "", yes: say("edit_yes"), fields: "edit" });
  if (yes === null) return;
  const given = { config_toml: $("edit-config").value, plate_map_csv: $("edit-map").value };
  order("/v1/plates", given, button);
}

$("queue-start").onclick = (event) => order("/v1/queue:start", {}, event.target);
$("queue-pause").onclick = (event) => order("/v1/queue:go-on", { goes_on: false }, event.target);

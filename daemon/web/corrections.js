// What a person decides over a well: next, skip, repeat, exclude, take in, relabel. Each with its reason, and undone as
// long as its note stands.
"use strict";

const ofRun = (well, verb) => `/v1/run/wells/${well}:${verb}`;
const ofPlate = (plate, well, verb) => `/v1/plates/${encodeURIComponent(plate)}/wells/${well}:${verb}`;
const givenReason = (text) => (text.trim() ? "" : say("reason_needed"));

$("next").onclick = (event) => order("/v1/run/wells:reorder", { plate: open.plate, wells: [open.well] }, event.target);

$("skip").onclick = async (event) => {
  const { plate: name, well } = open;
  const reason = await question({ title: say("skip_title", { well }), words: say("skip_words"), label: say("why_rows"), yes: say("skip_yes", { well }) });
  const undo = () => order("/v1/run/wells:reorder", { plate: name, wells: [well] }, null);
  if (reason !== null) order(ofRun(well, "skip"), { plate: name, reason }, event.target, undo);
};

$("repeat").onclick = async (event) => {
  const { plate: name, well } = open;
  const words = { title: say("repeat_title", { well }), words: say("repeat_words"), label: say("why_trail"), yes: say("repeat_yes", { well }) };
  const reason = await question(words);
  const undo = () => order(ofRun(well, "skip"), { plate: name, reason: say("undone", { what: say("repeat_yes", { well }) }) }, null);
  if (reason !== null) order(ofRun(well, "repeat"), { plate: name, reason }, event.target, undo);
};

const exclude = (name, well, reason, button, undo) => order(ofPlate(name, well, "exclude"), { reason }, button, undo);
const include = (name, well, reason, button, undo) => order(ofPlate(name, well, "include"), { reason }, button, undo);

$("exclude").onclick = async (event) => {
  const { plate: name, well } = open;
  const reason = await question({
    title: say("exclude_title", { well }), words: say("exclude_words"), label: say("why_trail"), yes: say("exclude_yes", { well }), check: givenReason,
  });
  const undo = () => include(name, well, say("undone", { what: reason }), null, null);
  if (reason !== null) exclude(name, well, reason, event.target, undo);
};

$("include").onclick = async (event) => {
  const { plate: name, well } = open, before = open.view.exclusion_reason;
  const reason = await question({
    title: say("include_title", { well }), words: say("include_words", { why: before }), label: say("why_trail"), yes: say("include_yes", { well }), check: givenReason,
  });
  if (reason !== null) include(name, well, reason, event.target, () => exclude(name, well, before, null, null));
};

const labelOf = (view) => ({
  role: view.role, compound: view.compound || "", patient: view.patient || "", ...(view.dose_um === null ? {} : { dose_um: view.dose_um }),
});

function writtenLabel() {
  const text = $("label-dose").value.trim().replace(",", ".");
  const given = { role: $("label-role").value, compound: $("label-compound").value.trim(), patient: $("label-patient").value.trim() };
  return text ? { ...given, dose_um: Number(text) } : given;
}

$("relabel").onclick = async (event) => {
  const { plate: name, well } = open, before = labelOf(open.view);
  $("label-role").value = before.role;
  $("label-compound").value = before.compound;
  $("label-dose").value = before.dose_um === undefined ? "" : String(before.dose_um);
  $("label-patient").value = before.patient;
  const check = (reason) => (Number.isNaN(writtenLabel().dose_um) ? say("dose_wrong") : givenReason(reason));
  const reason = await question({
    title: say("relabel_title", { well }), words: say("relabel_words"), label: say("why_trail"), yes: say("relabel_yes", { well }), check, fields: "label",
  });
  if (reason === null) return;
  const undo = () => order(ofPlate(name, well, "relabel"), { ...before, reason: say("undone", { what: reason }) }, null);
  order(ofPlate(name, well, "relabel"), { ...writtenLabel(), reason }, event.target, undo);
};

// -- the report -----------------------------------------------------------------------------------------------------

function save(blob, name) {
  const url = URL.createObjectURL(blob);
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
}

async function download(kind, button) {
  if (!plate) return;
  button.disabled = true;
  note(say("report_making"));
  try {
    const name = plate.plate;
    const answer = await ask(`/page/report?plate=${encodeURIComponent(name)}&kind=${kind}`);
    save(await answer.blob(), `${name}.${kind}`);
    note(say("report_done", { name: `${name}.${kind}` }));
  } catch (error) {
    if (error instanceof Refused) note(error.do ? say("refused", { what: error.message, do: error.do }) : error.message, true);
    else note(say("no_answer"), true);
  } finally { button.disabled = false; }
}
$("report-pdf").onclick = (event) => download("pdf", event.target);
$("report-html").onclick = (event) => download("html", event.target);

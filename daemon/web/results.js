// The table of results: every stack that counts, sorted, filtered, copied, saved. Raw values are sorted and saved;
// what is shown is written as everywhere.
"use strict";

let table = null, sorting = { column: 0, down: false };

const refreshResults = once(async () => {
  if (!plate) return;
  const name = plate.plate, tag = table && table.plate === name ? table.tag : "";
  const answer = await ask(`/page/results?plate=${encodeURIComponent(name)}`, { headers: tag ? { "if-none-match": tag } : {} });
  if (answer.status === 304) return;
  table = await answer.json();
  table.tag = answer.headers.get("etag");
  table.used = table.columns.map((_, n) => n < 6 || table.rows.some((row) => row[n] !== null && row[n] !== false));
  showHead();
  showRows();
});

const titleOf = (column) => (column.unit ? `${say(`column_${column.key}`)}, ${column.unit}` : say(`column_${column.key}`));

function written(column, value) {
  if (value === null) return UNKNOWN;
  if (column.name === "status") return STATES[value];
  if (column.key === "trust") return WORDS[`trusted-${value}`] || value;
  if (column.key === "reason") return told(value);
  if (column.name === "role") return say(`role_${value}`);
  if (column.kind === "truth") return value ? say("yes") : "";
  if (column.name === "dose_um") return dose(value);
  if (column.places !== null) return (value * column.scale).toFixed(column.places);
  return String(value);
}

function showHead() {
  const heads = table.columns.map((column, n) => {
    const button = element("button", { type: "button", textContent: titleOf(column), title: say(`column_${column.key}_meaning`), ariaLabel: say("sort_by", { column: titleOf(column) }) });
    button.onclick = () => { sorting = { column: n, down: sorting.column === n && !sorting.down }; showHead(); showRows(); };
    const head = element("th", { scope: "col" }, button);
    if (sorting.column === n) head.ariaSort = sorting.down ? "descending" : "ascending";
    head.hidden = !table.used[n];
    return head;
  });
  const focused = document.activeElement && document.activeElement.closest("#results th");
  const place = focused ? [...focused.parentNode.children].indexOf(focused) : -1;
  $("results").tHead.replaceChildren(element("tr", {}, ...heads));
  if (place >= 0) heads[place].firstChild.focus();
}

// Rows as they are shown now; what is not known comes last, whichever way it is sorted.
function chosenRows() {
  const words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = table.rows.filter((row) => {
    const text = table.columns.map((column, n) => written(column, row[n])).join(" ").toLowerCase();
    return words.every((word) => text.includes(word));
  });
  const { column, down } = sorting;
  return rows.sort((a, b) => {
    if (a[column] === null || b[column] === null) return (a[column] === null) - (b[column] === null);
    const less = typeof a[column] === "number" ? a[column] - b[column] : String(told(a[column])).localeCompare(String(told(b[column])), "en");
    return down ? -less : less;
  });
}

function showRows() {
  const rows = chosenRows();
  $("rows-shown").textContent = say("rows_shown", { n: rows.length, total: table.rows.length });
  $("results").tBodies[0].replaceChildren(...rows.map((row) => {
    const line = element("tr", { className: row[table.columns.findIndex((column) => column.name === "excluded")] ? "excluded" : "" });
    table.columns.forEach((column, n) => {
      if (!table.used[n]) return;
      const cell = element(n ? "td" : "th", n ? {} : { scope: "row" });
      if (n) cell.textContent = written(column, row[n]);
      else cell.append(element("button", { type: "button", textContent: row[n], onclick: () => openWell(row[n]) }));
      if (column.kind === "number" || column.kind === "integer") cell.className = "number";
      line.append(cell);
    });
    return line;
  }));
}

// A text with its delimiters, raw values, for a program or a sheet; a text that a sheet would compute stays a text.
function asText(rows, delimiter) {
  const cell = (value) => {
    let text = value === null ? "" : String(told(value));
    if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
    return /["\n\r]/.test(text) || text.includes(delimiter) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return [table.columns.map((column) => column.name), ...rows].map((row) => row.map(cell).join(delimiter)).join("\r\n") + "\r\n";
}

$("filter").addEventListener("input", () => table && showRows());
$("copy-table").onclick = async () => {
  if (!table) return;
  const rows = chosenRows();
  await navigator.clipboard.writeText(asText(rows, "\t"));
  note(say("rows_copied", { n: rows.length }));
};
$("csv").onclick = () => table && save(new Blob([asText(chosenRows(), ",")], { type: "text/csv" }), `${table.plate}.csv`);

"use strict";
// Text goes in as text only: tasks and names come from rigs and are nobody's markup.
const SIGN = { losing: "●", soon: "▲", odd: "◆" }; // shapes, so that colour is never needed
const SAY = { losing: "losing data", soon: "soon", odd: "odd" };
const $ = (id) => document.getElementById(id);

function element(tag, text, className) {
  const found = document.createElement(tag);
  if (text !== undefined && text !== null) found.textContent = text;
  if (className) found.className = className;
  return found;
}

function span(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${(seconds / 3600).toFixed(1)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

function bytes(n) {
  if (n === undefined) return "–";
  return n < 1e9 ? `${(n / 1e6).toFixed(1)} MB` : `${(n / 1e9).toFixed(1)} GB`;
}

function rigRow(rig) {
  const tr = element("tr");
  tr.append(element("td", `${rig.site}/${rig.rig}`), element("td", rig.state, rig.state), element("td", span(rig.for_s), "num"));
  const why = element("td");
  for (const reason of rig.reasons) why.append(element("div", `${SIGN[reason.severity]} ${reason.text}`, reason.severity));
  if (!rig.reasons.length) why.textContent = "–";
  tr.append(why, element("td", rig.task || "–"));
  tr.append(element("td", bytes(rig.waiting_bytes), "num"));
  tr.append(element("td", rig.hours_left === undefined || rig.hours_left === null ? bytes(rig.free_bytes) : span(rig.hours_left * 3600), "num"));
  tr.append(element("td", rig.bound_us ? `${Math.round(rig.bound_us)} µs` : "–", "num"));
  tr.append(element("td", typeof rig.battery_percent === "number" ? `${Math.round(rig.battery_percent)} %` : "–", "num"));
  return tr;
}

function show(fleet) {
  $("trouble").hidden = fleet.connected;
  $("trouble").textContent = fleet.connected ? "" : `The broker is not heard: ${fleet.trouble}. What stands below is old.`;
  const losing = fleet.severities.losing || 0;
  document.title = losing ? `(${losing}) edgecap fleet` : "edgecap fleet";
  const counts = [element("li", `${fleet.rigs} rigs`)];
  for (const [severity, sign] of Object.entries(SIGN)) {
    const n = fleet.severities[severity] || 0;
    if (n) counts.push(element("li", `${sign} ${n} ${SAY[severity]}`, severity));
  }
  for (const [state, n] of Object.entries(fleet.states)) counts.push(element("li", `${n} ${state}`, state));
  $("counts").replaceChildren(...counts);
  $("rigs").replaceChildren(...fleet.rows.map(rigRow));
  const hidden = fleet.matching - fleet.rows.length;
  $("note").textContent = hidden > 0 ? `${hidden} more: narrow them down with “Find”.`
    : fleet.rows.length ? "" : fleet.rigs ? "Nothing needs attention." : "No rig has spoken to this broker yet.";
  $("events").replaceChildren(...fleet.events.map((event) => {
    const li = element("li");
    li.append(element("time", `${span(event.age_s)} ago`), element("span", `${event.site}/${event.rig}`), element("span", `${event.kind}: ${event.text}`, event.kind));
    return li;
  }));
}

let timer = 0;
async function look() {
  clearTimeout(timer);
  try {
    const query = new URLSearchParams({ q: $("find").value });
    if ($("all").checked) query.set("all", "1");
    const answer = await fetch(`rigs.json?${query}`);
    if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
    show(await answer.json());
  } catch (error) {
    $("trouble").hidden = false;
    $("trouble").textContent = `This page's server does not answer (${error.message}). What stands below is old.`;
  }
  timer = setTimeout(look, 1000);
}
$("find").addEventListener("input", look);
$("all").addEventListener("change", look);
look();

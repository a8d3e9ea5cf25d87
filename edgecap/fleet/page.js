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

function link(text, href) {
  const found = element("a", text);
  found.href = href;
  return found;
}

function rigRow(rig) {
  const tr = element("tr");
  const name = element("td");
  name.append(link(`${rig.site}/${rig.rig}`, `#${rig.site}/${rig.rig}`));
  tr.append(name, element("td", rig.state, rig.state), element("td", span(rig.for_s), "num"));
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

const us = (ns) => (Math.abs(ns) < 9950 ? (ns / 1e3).toFixed(1) : Math.round(ns / 1e3).toString());

function table(heads, rows) {
  const found = element("table"), head = element("tr");
  heads.forEach((text, k) => head.append(element("th", text, k ? "num" : "")));
  found.append(head);
  for (const row of rows) {
    const tr = element("tr");
    row.forEach((text, k) => tr.append(element("td", text, k ? "num" : "")));
    found.append(tr);
  }
  return found;
}

// The rig named in the address (#site/rig): all its streams, and how well its boards' clocks are known.
function details(rig) {
  const parts = [element("h2", `${rig.site}/${rig.rig}: ${rig.state}`)];
  for (const reason of rig.reasons) parts.push(element("div", `${SIGN[reason.severity]} ${reason.text}`, reason.severity));
  if (rig.streams && rig.streams.length) {
    parts.push(table(["stream", "verdict", "rate", "lost", "bound ±"], rig.streams.map((v) => [
      v.stream, v.state, `${+v.rate_hz.toPrecision(5)} Hz`, v.lost || 0, `${us(v.u_ns || 0)} µs`])));
  }
  const clocks = Object.entries(rig.clocks || {});
  if (clocks.length) {
    parts.push(table(["clock of", "bound ±, µs", "sigma, µs", "skew, ppm", "slew, µs", "round trip, µs", "excess delay, µs",
      "rejects", "restarts", "resets", "lost frames"], clocks.map(([name, c]) => [
      name, c.locked ? us(c.u_ns) : "not locked", us(c.sigma_ns), c.skew_ppm.toFixed(2), us(c.slew_ns),
      `${us(c.rtt_p50_ns)} … ${us(c.rtt_p99_ns)}`, `${us(c.delay_p50_ns)} … ${us(c.delay_p99_ns)}`,
      c.rejected_unknown + c.rejected_stale + c.rejected_duplicate + c.rejected_impossible, c.restarts, c.resets, c.seq_lost])));
  }
  parts.push(link("close", "#"));
  $("rig").replaceChildren(...parts);
}

async function lookAtRig() {
  const [site, name] = decodeURIComponent(location.hash.slice(1)).split("/");
  $("rig").hidden = !name;
  if (!name) return;
  const answer = await fetch(`rig.json?${new URLSearchParams({ site, rig: name })}`);
  if (answer.ok) details(await answer.json());
  else $("rig").replaceChildren(element("p", await answer.text()), link("close", "#"));
}

let held = false; // a row that is replaced while the button is down would lose the click

function showRows(rows) {
  if (held) return;
  const focused = document.activeElement && document.activeElement.hash;
  $("rigs").replaceChildren(...rows.map(rigRow));
  if (focused) for (const a of $("rigs").querySelectorAll("a")) if (a.hash === focused) a.focus();
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
  showRows(fleet.rows);
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
    await lookAtRig();
  } catch (error) {
    $("trouble").hidden = false;
    $("trouble").textContent = `This page's server does not answer (${error.message}). What stands below is old.`;
  }
  timer = setTimeout(look, 1000);
}
addEventListener("pointerdown", () => { held = true; });
for (const end of ["pointerup", "pointercancel"]) addEventListener(end, () => setTimeout(() => { held = false; }));
addEventListener("hashchange", look);
$("find").addEventListener("input", look);
$("all").addEventListener("change", look);
look();

/* Keeps the page of an upload up to date: asks twice a second while the import runs and somebody looks. */
"use strict";

const PAUSE = 500;
const upload = document.getElementById("upload");
const problems = document.getElementById("problems");
const report = document.getElementById("report");

function show(status) {
  for (const name of ["state", "message", "rejected"]) {
    upload.querySelector(`[data-text="${name}"]`).textContent = status[name];
  }
  for (const name of ["lines", "receipts"]) {
    const { done, total } = status[name];
    const bar = upload.querySelector(`[data-progress="${name}"]`);
    bar.max = total || 1;
    bar.value = done;
    upload.querySelector(`[data-count="${name}"]`).textContent = `${done} of ${total}`;
  }
  problems.hidden = !status.problems.length;
  fill(problems, "problems", status.problems);
  if (status.report) showReport(status.report);
}

function showReport(values) {
  report.hidden = false;
  for (const name of ["orders", "revenue"]) {
    report.querySelector(`[data-report="${name}"]`).textContent = values[name];
  }
  for (const name of ["best_sellers", "countries"]) fill(report, name, values[name]);
}

function fill(section, name, texts) {
  const items = texts.map((text) => {
    const item = document.createElement("li");
    item.textContent = text;
    return item;
  });
  section.querySelector(`[data-list="${name}"]`).replaceChildren(...items);
}

async function follow() {
  let done = false;
  if (!document.hidden) {
    try {
      const response = await fetch(upload.dataset.url);
      if (response.ok) {
        const status = await response.json();
        show(status);
        done = status.done;
      }
    } catch {
      // The server is away; the next round asks again.
    }
  }
  if (!done) setTimeout(follow, PAUSE);
}

if (upload.dataset.done !== "true") follow();

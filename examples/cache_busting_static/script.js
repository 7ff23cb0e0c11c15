import { origin } from "./origin.js";

// A page that comes back out of the browser's memory, after "back", may be older than what was sent since.
addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload();
});

const rows = document.querySelector("#fetched tbody");
if (rows) addEventListener("load", () => {
  for (const entry of performance.getEntriesByType("resource")) {
    const url = new URL(entry.name);
    if (!url.pathname.startsWith("/static/")) continue;
    const row = rows.insertRow();
    row.insertCell().append(Object.assign(document.createElement("code"), { textContent: url.pathname + url.search }));
    row.insertCell().textContent = origin(entry);
  }
});

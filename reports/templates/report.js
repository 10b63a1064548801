// Sorting, filtering and reading the table of requests. The page is whole without it.
"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const heads = Array.from(table.tHead.rows[0].cells);

  const key = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value);
  };
  // Cells without a number ("–") come last, whichever way a column is sorted.
  const compare = (one, other) => {
    if (typeof one === "number" && typeof other === "number") return one - other;
    return String(one).localeCompare(String(other));
  };
  const sortBy = (column) => {
    const direction = heads[column].getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const head of heads) head.removeAttribute("aria-sort");
    heads[column].setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
    const numeric = heads[column].classList.contains("n");
    const present = (row) => !numeric || row.cells[column].dataset.value !== undefined;
    const sorted = rows.filter(present).sort((a, b) => direction * compare(key(a, column), key(b, column)));
    body.append(...sorted, ...rows.filter((row) => !present(row)));
  };
  const titles = heads.map((head) => head.textContent);
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    button.addEventListener("click", () => sortBy(column));
    head.replaceChildren(button);
  });

  const label = document.createElement("label");
  label.className = "filter";
  const input = document.createElement("input");
  input.type = "search";
  input.placeholder = "engine, workload, status …";
  label.append("Filter", input);
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
  });
  table.parentElement.before(label);

  // One row at a time is told in full, by pointer or by arrow keys; only that row is a stop of the tab key.
  const readout = document.createElement("p");
  readout.className = "readout";
  readout.setAttribute("aria-live", "polite");
  label.after(readout);
  const tell = (row) => {
    const cells = Array.from(row.cells, (cell, column) => `${titles[column]} ${cell.title || cell.textContent}`);
    readout.textContent = cells.join(", ");
  };
  const first = () => Array.from(body.rows).find((row) => !row.hidden);
  const stop = (row) => {
    for (const other of rows) other.removeAttribute("tabindex");
    if (row) row.tabIndex = 0;
  };
  const steps = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" };
  const beside = (row, way) => {
    do row = row[way]; while (row && row.hidden);
    return row;
  };
  body.addEventListener("pointerover", (event) => {
    const row = event.target.closest("tr");
    if (row) tell(row);
  });
  body.addEventListener("focusin", (event) => tell(event.target.closest("tr")));
  body.addEventListener("keydown", (event) => {
    const way = steps[event.key];
    const next = way && beside(event.target.closest("tr"), way);
    if (!next) return;
    event.preventDefault();
    stop(next);
    next.focus();
  });
  input.addEventListener("input", () => stop(first()));
  table.tHead.addEventListener("click", () => stop(first()));
  stop(first());
  readout.textContent = rows.length ? "Point at a request, or choose one with the arrow keys, to read its exact times." : "";
}

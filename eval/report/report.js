"use strict";
// Sorting at a click on a column's head, and hover texts at a tap. The page is whole without it.
const number = (cell) => {
  const found = /[-+\u2212]?[\d,]*\.?\d+/.exec(cell.dataset.value ?? cell.textContent);
  return found ? Number(found[0].replaceAll(",", "").replace("\u2212", "-")) : NaN;
};

function compare(place, isText, sign) {
  return (a, b) => {
    const [first, second] = [a.cells[place], b.cells[place]];
    if (isText) return sign * first.textContent.localeCompare(second.textContent);
    const [x, y] = [number(first), number(second)];
    if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
    return sign * (x - y);
  };
}

// Down, up, as it was.
function sort(table, head, place) {
  const body = table.tBodies[0];
  table.inOrder ??= [...body.rows];
  const isText = table.inOrder.every((row) => Number.isNaN(number(row.cells[place])))
    || place === 0;
  const states = isText ? ["ascending", "descending", "none"] : ["descending", "ascending", "none"];
  const state = states[(states.indexOf(head.getAttribute("aria-sort") ?? "none") + 1) % 3];
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  if (state !== "none") head.setAttribute("aria-sort", state);
  const sign = state === "descending" ? -1 : 1;
  const rows = [...table.inOrder];
  if (state !== "none") rows.sort(compare(place, isText, sign));
  body.append(...rows);
}

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows].at(-1).cells;
  [...heads].forEach((head, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    button.title = "sort";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => sort(table, head, place));
  });
}

const tip = document.createElement("div");
tip.id = "tip";
tip.setAttribute("role", "status");
tip.hidden = true;
document.body.append(tip);
document.addEventListener("click", (event) => {
  const told = event.target.closest("td[title], g:has(> title)");
  tip.hidden = !told;
  if (told) tip.textContent = told.getAttribute("title") ?? told.querySelector("title").textContent;
});

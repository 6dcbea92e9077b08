"use strict";
/* The page without this script is whole: it adds sorting, a choice of columns, enlarging, copying and printing. */
const voice = document.getElementById("said");
const say = (text) => { voice.textContent = text; };
const make = (tag, properties, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};

/* Sorting: a button in every heading; rows move inside their group; a third press restores the order. */
const compare = new Intl.Collator(undefined, { numeric: true }).compare;
const valueOf = (row, column) => {
  const cell = row.cells[column];
  if (!cell) return null;
  if (!cell.classList.contains("n")) return cell.textContent;
  return "v" in cell.dataset ? Number(cell.dataset.v) : null;
};
const ordered = (rows, column, direction) => [...rows].sort((a, b) => {
  const [x, y] = [valueOf(a, column), valueOf(b, column)];
  if (x === null || y === null) return (x === null) - (y === null);
  return direction * (typeof x === "number" ? x - y : compare(x, y));
});
for (const table of document.querySelectorAll("table")) {
  const bodies = [...table.tBodies].map((body) => ({ body, rows: [...body.rows].filter((row) => row.className !== "group") }));
  if (!table.tHead || Math.max(0, ...bodies.map(({ rows }) => rows.length)) < 2) continue;
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const title = head.textContent;
    const button = make("button", { type: "button", className: "sort" }, title);
    head.replaceChildren(button);
    head.setAttribute("aria-sort", "none");
    const first = head.classList.contains("n") ? ["descending", "ascending"] : ["ascending", "descending"];
    const states = [...first, "none"];
    button.addEventListener("click", () => {
      const state = states[(states.indexOf(head.getAttribute("aria-sort")) + 1) % 3];
      for (const other of heads) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", state);
      for (const { body, rows } of bodies) {
        body.append(...(state === "none" ? rows : ordered(rows, column, state === "ascending" ? 1 : -1)));
      }
      say(state === "none" ? "Rows in their first order" : `Sorted by ${title}, ${state}`);
    });
  });
}

/* Columns to choose: all but the first; wide ones begin hidden on a narrow screen. */
const narrow = window.matchMedia("(max-width: 36rem)").matches;
for (const region of document.querySelectorAll(".scroll")) {
  const table = region.querySelector("table");
  const heads = table && table.tHead ? [...table.tHead.rows[0].cells] : [];
  if (heads.length < 5) continue;
  const show = (column, visible) => {
    for (const row of table.rows) if (row.className !== "group" && row.cells[column]) row.cells[column].hidden = !visible;
    const left = heads.filter((head) => !head.hidden).length;
    for (const head of table.querySelectorAll("tr.group th")) head.colSpan = left;
  };
  const boxes = heads.slice(1).map((head, place) => {
    const box = make("input", { type: "checkbox", checked: !(narrow && head.classList.contains("wide")) });
    box.addEventListener("change", () => show(place + 1, box.checked));
    if (!box.checked) show(place + 1, false);
    return make("label", {}, box, " ", head.textContent);
  });
  const fields = make("fieldset", {}, make("legend", {}, `Columns of ${region.getAttribute("aria-label")}`), ...boxes);
  region.before(make("details", { className: "columns" }, make("summary", {}, "Columns"), fields));
}

/* Enlarging: what a figure shows moves into a dialog and back, so that ids stay unique. */
const dialog = make("dialog", {});
const place = make("div", { className: "enlarged" });
const told = make("p", { className: "note", id: "enlarged-caption" });
dialog.setAttribute("aria-labelledby", told.id);
dialog.append(make("form", { method: "dialog" }, make("button", { className: "close" }, "Close")), place, told);
document.body.append(dialog);
let home = null;
dialog.addEventListener("close", () => {
  if (home) { home.figure.prepend(...place.childNodes); home.figure.style.minHeight = ""; home = null; }
});
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
for (const figure of document.querySelectorAll("figure")) {
  const shown = figure.querySelector(":scope > svg, :scope > .large");
  const caption = figure.querySelector("figcaption");
  if (!shown || !caption) continue;
  const text = caption.textContent;
  const enlarge = () => {
    if (dialog.open) return;
    figure.style.minHeight = `${figure.offsetHeight}px`;
    home = { figure };
    place.replaceChildren(shown);
    told.textContent = text;
    dialog.showModal();
  };
  const button = make("button", { type: "button", className: "enlarge" }, "Enlarge");
  button.setAttribute("aria-label", `Enlarge: ${text}`);
  button.addEventListener("click", enlarge);
  shown.addEventListener("click", enlarge);
  caption.append(" ", button);
}

/* Copying a command. A page from a file may lack the clipboard's interface. */
const copy = async (text) => {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = make("textarea", { value: text });
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
};
for (const code of document.querySelectorAll("pre > code")) {
  const button = make("button", { type: "button", className: "copy" }, "Copy");
  button.setAttribute("aria-label", `Copy the command: ${code.textContent.slice(0, 60)}`);
  button.addEventListener("click", async () => {
    const done = await copy(code.textContent);
    button.textContent = done ? "Copied" : "Not copied";
    say(done ? "Copied" : "Not copied: select the text instead");
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
  code.parentElement.before(button);
}

/* On paper everything is open. */
let folded = [];
window.addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open]):not(.columns)")];
  for (const element of folded) element.open = true;
});
window.addEventListener("afterprint", () => { for (const element of folded) element.open = false; });

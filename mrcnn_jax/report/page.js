// Sorts a table by the column whose heading is pressed, and enlarges a picture that is pressed.
// Without scripts a page has all its content, but neither of these.
"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  const value = (row, at) => {
    const text = row.cells[at].dataset.value ?? row.cells[at].textContent.trim();
    return text === "" || text === "-" ? NaN : Number(text.replace(/,/g, ""));
  };
  heads.forEach((head, at) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const numeric = head.classList.contains("n");
      const down = head.ariaSort ? head.ariaSort === "ascending" : numeric;
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const compare = (a, b) => {
        if (!numeric) return a.cells[at].textContent.localeCompare(b.cells[at].textContent) * (down ? -1 : 1);
        const [x, y] = [value(a, at), value(b, at)];
        if (isNaN(x) || isNaN(y)) return isNaN(x) - isNaN(y);
        return down ? y - x : x - y;
      };
      body.append(...[...body.rows].sort(compare));
    });
  });
}
const dialog = document.createElement("dialog");
document.body.append(dialog);
dialog.addEventListener("click", () => dialog.close());
for (const pair of document.querySelectorAll(".pair")) {
  const button = document.createElement("button");
  button.className = "zoom";
  button.title = "Enlarge";
  pair.replaceWith(button);
  button.append(pair);
  button.addEventListener("click", () => {
    const caption = button.parentElement.querySelector("figcaption");
    dialog.replaceChildren(pair.cloneNode(true), ...(caption ? [caption.cloneNode(true)] : []));
    dialog.showModal();
  });
}

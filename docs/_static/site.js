// On a narrow screen the rows of a table with many columns are shown as lists: see site.css.
document.addEventListener("DOMContentLoaded", () => {
  for (const table of document.querySelectorAll("article table.docutils")) {
    const heads = [...table.querySelectorAll("thead th")].map((head) => head.innerText.trim());
    if (heads.length < 3) continue;
    table.classList.add("labelled");
    for (const row of table.querySelectorAll("tbody tr")) {
      [...row.cells].forEach((cell, index) => (cell.dataset.label = heads[index] ?? ""));
    }
  }
});

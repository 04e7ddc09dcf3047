// A heading sorts the rows by its column; cells without a number stay last.
const body = find("#rows tbody");
every("#rows thead th").forEach((head, column) => {
  const button = find("button", head);
  if (!button) return;
  button.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of every("#rows thead th[aria-sort]")) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = (row) => {
      const text = row.children[column].dataset.value;
      return text === undefined ? null : Number(text);
    };
    const rows = [...body.children].map((row) => [value(row), row]);
    rows.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      return down ? b - a : a - b;
    });
    body.append(...rows.map(([, row]) => row));
  });
});

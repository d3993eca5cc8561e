"use strict";
(() => {
  const BATCH = 200; // rows shown at once; a browser needs seconds for ten thousand
  const byId = (id) => document.getElementById(id);
  document.documentElement.classList.add("js");

  const table = byId("cases-table");
  const say = byId("shown");
  if (table) {
    const body = table.tBodies[0];
    const cells = (row) => row.cells;
    const last = table.tHead.rows[0].cells.length - 1;
    let rows = Array.from(body.rows, (element, place) => ({
      element,
      place,
      text: element.textContent.toLowerCase(),
      quantization: cells(element)[last - 1].textContent,
      scenario: cells(element)[last].textContent,
      outcome: element.dataset.o,
    }));
    const total = rows.length;
    const filters = ["quantization", "scenario", "outcome"].map((name) => [name, byId(`filter-${name}`)]);
    const search = byId("filter-text");
    const more = byId("more");
    let limit = BATCH;

    const key = (row, column) => {
      const cell = cells(row.element)[column];
      if (cell.classList.contains("n")) return cell.dataset.v === undefined ? null : Number(cell.dataset.v);
      return cell.textContent.toLowerCase();
    };

    const show = () => {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      let found = 0;
      for (const row of rows) {
        const fits =
          filters.every(([name, select]) => select.value === "" || row[name] === select.value) &&
          words.every((word) => row.text.includes(word));
        if (fits) found += 1;
        row.element.hidden = !fits || found > limit;
      }
      const laid = Math.min(found, limit);
      say.textContent =
        found > laid ? `${laid} of ${found} matching cases shown, ${total} in all` : `${found} of ${total} cases shown`;
      more.hidden = found <= limit;
    };
    const reset = () => {
      limit = BATCH;
      show();
    };

    const sort = (column) => {
      const heads = Array.from(table.tHead.rows[0].cells);
      const up = heads[column].getAttribute("aria-sort") !== "ascending";
      heads.forEach((head, place) =>
        head.setAttribute("aria-sort", place === column ? (up ? "ascending" : "descending") : "none"));
      const keyed = rows.map((row) => [key(row, column), row]);
      const compare = new Intl.Collator(undefined, { numeric: true }).compare;
      keyed.sort(([a, one], [b, other]) => {
        if (a === null || b === null) return (a === null) - (b === null) || one.place - other.place;
        const order = typeof a === "number" ? a - b : compare(a, b);
        return (up ? order : -order) || one.place - other.place;
      });
      rows = keyed.map(([, row]) => row);
      const all = document.createDocumentFragment();
      rows.forEach((row) => all.append(row.element));
      body.append(all);
      reset();
    };

    table.tHead.addEventListener("click", (event) => {
      const head = event.target.closest("button")?.closest("th");
      if (head && head.cellIndex <= last) sort(head.cellIndex);
    });
    let waiting = 0;
    search.addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(reset, total > 1000 ? 150 : 0);
    });
    filters.forEach(([, select]) => select.addEventListener("change", reset));
    byId("clear").addEventListener("click", () => {
      search.value = "";
      filters.forEach(([, select]) => (select.value = ""));
      reset();
      search.focus();
    });
    more.addEventListener("click", () => {
      limit += 5 * BATCH;
      show();
    });
    // A browser keeps the search text when it reloads.
    show();
  }

  const records = document.querySelectorAll("details.record");
  const fold = (open) => records.forEach((record) => (record.open = open));
  byId("unfold")?.addEventListener("click", () => fold(true));
  byId("fold")?.addEventListener("click", () => fold(false));

  const follow = () => {
    const record = byId(decodeURIComponent(location.hash.slice(1)))?.closest("details");
    if (!record) return;
    record.open = true;
    record.scrollIntoView({ block: "start", behavior: "instant" });
    record.querySelector("summary").focus({ preventScroll: true });
  };
  addEventListener("hashchange", follow);
  // A link to the current hash causes no hashchange event.
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#c"]');
    if (link && link.hash === location.hash) follow();
  });
  follow();

  const copied = byId("copied");
  const copy = async (source) => {
    try {
      await navigator.clipboard.writeText(source.textContent);
      return true;
    } catch {
      // A page from the disk may have no access to the clipboard; a selection can always be copied.
      const selection = getSelection();
      selection.selectAllChildren(source);
      return document.execCommand("copy");
    }
  };
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button.copy");
    if (!button) return;
    const done = await copy(button.parentElement.querySelector("code"));
    button.textContent = done ? "Copied" : "Selected";
    copied.textContent = done ? "The command was copied." : "The command is selected; copy it with the keyboard.";
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
})();

// Tables that are live: rows keep their elements, so that the focus stays where it is, and only what changed is set.

import { el, setText } from "/page/dom.js";

/** A table. `columns`: {label, text(row)} for text, {label, make(row)} for elements, made once for each row;
 *  `key(row)` tells rows apart. On a narrow screen each row is a card, so all says what it is by its role.
 */
export class Table {
  constructor(caption, columns, key, nothing) {
    this.columns = columns;
    this.key = key;
    this.rows = new Map();
    this.body = el("tbody", { role: "rowgroup" });
    const heads = columns.map(({ label, right }) => el("th", { scope: "col", role: "columnheader", class: right ? "right" : null }, label));
    const head = el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, heads));
    this.table = el("table", { role: "table" }, el("caption", { class: "unseen" }, caption), head, this.body);
    this.nothing = el("p", { class: "quiet" }, nothing);
    this.element = el("div", {}, this.table, this.nothing);
    this.update([]);
  }

  update(rows) {
    this.table.hidden = rows.length === 0;
    this.nothing.hidden = rows.length !== 0;
    const keys = rows.map((row) => String(this.key(row)));
    const wanted = new Set(keys);
    for (const [key, { element }] of this.rows) {
      if (!wanted.has(key)) {
        element.remove();
        this.rows.delete(key);
      }
    }
    let before = this.body.firstElementChild;
    rows.forEach((row, index) => {
      const known = this.rows.get(keys[index]) ?? this.#make(keys[index], row);
      this.#fill(known, row);
      if (known.element === before) before = before.nextElementSibling;
      else this.body.insertBefore(known.element, before);
    });
  }

  #make(key, row) {
    const cells = this.columns.map(({ label, right, make }) =>
      el("td", { role: "cell", "data-label": label, class: right ? "right" : null }, el("span", {}, make ? make(row) : null)),
    );
    const known = { element: el("tr", { role: "row" }, cells), cells: cells.map((cell) => cell.firstElementChild) };
    this.rows.set(key, known);
    return known;
  }

  #fill(known, row) {
    this.columns.forEach(({ text, tone }, index) => {
      const cell = known.cells[index];
      if (text) setText(cell, text(row));
      if (tone) cell.className = tone(row) ?? "";
    });
  }
}

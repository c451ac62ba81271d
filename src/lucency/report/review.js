"use strict";
// The columns of answers.csv, as lucency.audit.review reads them.
const COLUMNS = ["sheet", "image", "reviewer", "answer", "also"];

function cellOf(value) {
  const text = String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function csvOf(rows) {
  const lines = rows.map((row) => COLUMNS.map((name) => cellOf(row[name])).join(","));
  return [COLUMNS.join(","), ...lines].join("\n") + "\n";
}

function review() {
  const key = `lucency-review-${document.body.dataset.fingerprint}`;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const name = document.getElementById("reviewer");
  const cards = all("fieldset.card");
  const chosen = (card) => card.querySelector("input[type=radio]:checked")?.value ?? "";
  const ticked = (card) => all("input[type=checkbox]:checked", card).map((box) => box.value);
  const show = (text) => { document.getElementById("message").textContent = text; };

  function keep() {
    const films = Object.fromEntries(cards.map((card) => [card.id, [chosen(card), ticked(card)]]));
    try {
      localStorage.setItem(key, JSON.stringify({ reviewer: name.value, films }));
    } catch {
      show("This browser stores nothing: save before you close the page.");
    }
  }

  function restore() {
    try {
      const kept = JSON.parse(localStorage.getItem(key) ?? "null");
      if (!kept) return;
      name.value = kept.reviewer;
      for (const card of cards) {
        const [answer, also] = kept.films[card.id] ?? ["", []];
        for (const radio of all("input[type=radio]", card)) radio.checked = radio.value === answer;
        for (const box of all("input[type=checkbox]", card)) box.checked = also.includes(box.value);
      }
    } catch {
      show("The stored answers cannot be read: the page starts empty.");
    }
  }

  function count() {
    for (const section of all("section.sheet")) {
      const left = all("fieldset.card", section).filter((card) => !chosen(card)).length;
      section.querySelector(".left").textContent = left ? `${left} left` : "complete";
    }
    const left = cards.filter((card) => !chosen(card)).length;
    document.getElementById("left").textContent = `${left} of ${cards.length} films left`;
    for (const card of cards) card.classList.toggle("answered", Boolean(chosen(card)));
  }

  function mark(event) {
    const card = event.target.closest?.("fieldset.card");
    if (!card || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key.toLowerCase() === "l") enlarge(card);
    const word = { y: "yes", n: "no", u: "unsure" }[event.key.toLowerCase()];
    if (!word) return;
    event.preventDefault();
    card.querySelector(`input[value=${word}]`).checked = true;
    cards[cards.indexOf(card) + 1]?.querySelector("input[type=radio]").focus();
    keep();
    count();
  }

  function rows() {
    return cards.filter(chosen).map((card) => ({
      sheet: card.dataset.sheet, image: card.dataset.image, reviewer: name.value.trim(),
      answer: chosen(card), also: ticked(card).join("|"),
    }));
  }

  function save() {
    if (!name.value.trim()) {
      show("Please give your name or initials first.");
      name.focus();
      return;
    }
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([csvOf(rows())], { type: "text/csv" }));
    link.download = "answers.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    show(`Saved ${rows().length} answers as answers.csv.`);
  }

  function enlarge(card) {
    const large = document.getElementById("large");
    large.querySelector("img").src = card.querySelector("img").src;
    large.showModal();
  }

  restore();
  count();
  document.addEventListener("change", () => { keep(); count(); });
  document.addEventListener("keydown", mark);
  document.getElementById("save").addEventListener("click", save);
  for (const card of cards) {
    card.querySelector("button.enlarge").addEventListener("click", () => enlarge(card));
  }
  document.getElementById("large").addEventListener("click", (event) => event.currentTarget.close());
}

if (typeof document !== "undefined") review();

const COUNT = 5;  // alternatives in a list
const PAUSE = 700;  // milliseconds without a key, after which words are offered
const WORD = (() => {  // words of scripts with spaces between them
  const letter = "(?![\\p{sc=Han}\\p{sc=Hira}\\p{sc=Kana}\\p{sc=Thai}\\p{sc=Laoo}\\p{sc=Khmr}\\p{sc=Mymr}\\p{sc=Tibt}])[\\p{L}\\p{M}\\p{N}]";
  return new RegExp(`(?:${letter})+(?:[${about.joiners.replace("-", "\\-")}](?:${letter})+)*`, "gu");
})();

/** Returns the word of a text that a place is in or at an end of, {from, to, text}, or undefined. */
function wordAt(text, place) {
  const line = text.lastIndexOf("\n", place - 1) + 1, end = text.indexOf("\n", place);
  for (const {0: word, index} of text.slice(line, end < 0 ? undefined : end).matchAll(WORD)) {
    const from = line + index, to = from + word.length;
    if (from <= place && place <= to) return {from, to, text: word};
  }
  return undefined;
}

/** Returns a probability for people. */
const percent = probability => probability < 0.01 ? "<1%" : `${Math.round(100 * probability)}%`;

/**
 * The list of alternatives, which belongs to the text field.
 *
 * `kind` is "words" or "sentences"; `word`, if there is one, is the word that they are to replace; `place` is where they
 * begin. A list that was `asked` for has the arrow keys; one that appears by itself leaves them to the text.
 */
class Offers {
  constructor(take) {
    this.take = take;
    this.turn = 0;
    this.close();
    element("list").addEventListener("click", event => {
      const option = event.target.closest("li");
      if (option) this.take(Array.from(option.parentNode.children).indexOf(option));
    });
    element("offer").addEventListener("mousedown", event => event.preventDefault());  // the field keeps the focus
  }

  get isOpen() {
    return this.options.length > 0;
  }

  /** Closes the list, and gives up a search for one. */
  close() {
    this.turn++;
    this.options = [];
    this.active = -1;
    element("offer").hidden = true;
    field.removeAttribute("aria-activedescendant");
  }

  /** Searches for alternatives, and shows them unless something else has happened meanwhile. */
  async open(reader, request, choose) {
    const {kind, word} = request;
    this.close();
    const turn = this.turn, start = await reader.at(request.id);
    if (!start || turn !== this.turn) return;
    const now = word && await wordProbability(encode(word.text).ids, start);
    const search = kind === "words" ? likelyWords(COUNT + (word ? 1 : 0), start) : drawnSentences(COUNT, start, choose);
    const found = await search;
    if (turn !== this.turn) return;
    Object.assign(this, request, {options: found.filter(({text}) => text !== word?.text).slice(0, COUNT)});
    const title = {words: "Next word", sentences: "Rest of the sentence"}[kind];
    this.show(word ? `Instead of \u201c${word.text}\u201d (${percent(now)})` : title);
  }

  /** Fills the list, lays it out, and tells a screen reader. */
  show(title) {
    element("offer-title").textContent = title;
    element("list").replaceChildren(...this.options.map((option, n) => this.line(option, n)));
    element("offer").hidden = !this.isOpen;
    if (this.isOpen) layOut(element("offer"), this.place);
    const told = this.options.map(({text}, n) => `${n + 1} ${this.begun(text)}${text.trim()}`).join(", ");
    element("told").textContent = `${title}: ${told || "nothing found"}`;
  }

  /** Returns what is typed of a word already, if an alternative goes on with it. */
  begun(text) {
    return this.prefix && !this.word && /^[\p{L}\p{M}\p{N}]/u.test(text) ? this.prefix : "";
  }

  /** Returns the line of an alternative. */
  line({text, probability}, n) {
    const line = document.createElement("li"), part = (name, content, kind = "") => {
      const one = Object.assign(document.createElement(name), {className: kind});
      one.append(...[content].flat());
      return one;
    };
    const choice = text.trim().replace(/\s*\n\s*/g, " \u21b5 "), begins = /^\s*\n/.test(text) ? "\u21b5 " : "";
    line.id = `option-${n + 1}`;
    line.setAttribute("role", "option");
    line.setAttribute("aria-selected", "false");
    line.append(part("kbd", `${n + 1}`), part("span", [part("span", this.begun(text), "faint"), begins + choice], "choice"));
    if (probability !== undefined) line.append(part("span", percent(probability), "share"));
    return line;
  }

  /** Makes the next alternative, or the one before, the active one. */
  move(by) {
    const count = this.options.length, lines = Array.from(element("list").children);
    this.active = this.active < 0 ? (by > 0 ? 0 : count - 1) : (this.active + by + count) % count;
    lines.forEach((line, n) => line.setAttribute("aria-selected", n === this.active));
    lines[this.active].scrollIntoView({block: "nearest"});
    field.setAttribute("aria-activedescendant", lines[this.active].id);
  }

  /** Handles a key while the list is open; returns whether it was one of the list's. */
  key(name) {
    if (name === "Escape") this.close();
    else if (name === "Tab") this.take(Math.max(0, this.active));
    else if (this.asked && name === "ArrowDown") this.move(1);
    else if (this.asked && name === "ArrowUp") this.move(-1);
    else if (name === "Enter" && this.active >= 0) this.take(this.active);
    else return false;
    return true;
  }
}

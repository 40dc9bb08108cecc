const element = id => document.getElementById(id);
const field = element("text"), mirror = element("mirror");

// A combining mark or a part of an emoji belongs to the run of the character that it joins.
const JOINS = /^[\p{M}\p{Emoji_Modifier}\u200d]/u;

/**
 * Returns the text as runs {kind, text}, each with its CSS classes: "model" in a mark, "unknown" for what is left out,
 * "b1" and so on for surprisal, if it is to be shaded.
 */
function runsOf({text, marks}, {ends, skipped}, bits, shade) {
  const borders = [...marks.flat(), ...skipped.flatMap(({from, to}) => [from, to]), ...(shade ? ends : []), text.length];
  const runs = [];
  let from = 0, id = 0, mark = 0, skip = 0;
  for (const to of borders.sort((a, b) => a - b)) {
    if (to === from) continue;
    while (ends[id] < to) id++;
    while (marks[mark]?.[1] <= from) mark++;
    while (skipped[skip]?.to <= from) skip++;
    const kinds = [], level = shade ? Math.min(about.levels, Math.floor(bits[id] || 0)) : 0;
    if (marks[mark]?.[0] <= from) kinds.push("model");
    if (skipped[skip]?.from <= from) kinds.push("unknown");
    if (level > 0) kinds.push(`b${level}`);
    addRun(runs, kinds.join(" "), text.slice(from, to));
    from = to;
  }
  return runs;
}

/** Adds text to the last run if it has the same kind or joins its last character, else as a run. */
function addRun(runs, kind, text) {
  const last = runs.at(-1);
  if (last && (last.kind === kind || JOINS.test(text) || last.text.endsWith("\u200d"))) last.text += text;
  else runs.push({kind, text});
}

/** Shows runs in the mirror. Those at the beginning and the end that are as they were stay. */
const show = (() => {
  let shown = [];
  return runs => {
    const most = Math.min(runs.length, shown.length), equal = (a, b) => a.kind === b.kind && a.text === b.text;
    let same = 0, tail = 0;
    while (same < most && equal(runs[same], shown[same])) same++;
    while (tail < most - same && equal(runs.at(-1 - tail), shown.at(-1 - tail))) tail++;
    const spans = runs.slice(same, runs.length - tail).map(({kind, text}) => {
      const span = document.createElement("span");
      span.className = kind;
      span.textContent = text;
      return span;
    });
    for (let n = same; n < shown.length - tail; n++) mirror.children[same].remove();
    mirror.children[same].before(...spans);
    shown = runs;
  };
})();
mirror.append(document.createElement("span"));
mirror.lastChild.textContent = "\u200b";  // has a place even at the beginning of an empty line

/** Returns the DOM range of the text [from, to) in the mirror; from < to. */
function rangeOf(from, to) {
  const range = document.createRange();
  let before = 0, begun = false;
  for (const {firstChild} of mirror.children) {
    const end = before + firstChild.length;
    if (!begun && from < end) {
      range.setStart(firstChild, from - before);
      begun = true;
    }
    if (begun && to <= end) {
      range.setEnd(firstChild, to - before);
      break;
    }
    before = end;
  }
  return range;
}

/** Returns where a cursor before a character is on the screen. */
const cursorAt = place => rangeOf(place, place + 1).getClientRects()[0] ?? mirror.getBoundingClientRect();

/** Returns whether a point of the screen is on the text [from, to). */
function isOn(from, to, x, y) {
  const rects = Array.from(rangeOf(from, to).getClientRects());
  return rects.some(({left, right, top, bottom}) => left <= x && x <= right && top <= y && y <= bottom);
}

/** Scrolls so far that a place of the text is in sight. */
function reveal(place) {
  const below = cursorAt(place).bottom + 24 - innerHeight;
  if (below > 0) scrollBy(0, below);
}

/** Lays the list of alternatives below a place of the text, above it if there is room only there, and in sight. */
function layOut(list, place) {
  const at = cursorAt(place), sheet = element("sheet").getBoundingClientRect();
  const end = visualViewport?.height ?? innerHeight, top = element("bar").getBoundingClientRect().bottom;
  const below = at.bottom + 6, above = at.top - list.offsetHeight - 6;
  const over = below + list.offsetHeight + 6 - end, isAbove = over > 0 && above > top;
  list.style.left = `${Math.max(0, Math.min(at.left - sheet.left - 12, sheet.width - list.offsetWidth))}px`;
  list.style.top = `${(isAbove ? above : below) - sheet.top}px`;
  if (over > 0 && !isAbove) scrollBy(0, Math.min(over, at.top - top - 6));
}

const KEY = `chargen ${about.digest}`;  // of the browser's storage
const FRAME = 40;  // milliseconds between two showings of a text that is being written
const SETTINGS = ["temperature", "top-p", "length", "offers", "shade"];

const reader = new Reader();
const offers = new Offers(take);
let draft = new Draft();
let encoded = encode("");
let run = null;  // of the model, while it writes
let runs = 0;
const timers = {};

/** Calls a function after a pause in such calls under its name. */
function later(name, milliseconds, call) {
  clearTimeout(timers[name]);
  timers[name] = setTimeout(call, milliseconds);
}

const tell = text => { element("told").textContent = text; };
const report = text => { element("status").textContent = text; };
const count = number => Math.round(number).toLocaleString("en");

/** Returns how many ids stand for the text before a place. */
function idAt(place) {
  let low = 0, high = encoded.ends.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (encoded.ends[middle] <= place) low = middle + 1; else high = middle;
  }
  return low;
}

/** Shows the text with its marks and its shading. */
function render() {
  show(runsOf(draft, encoded, reader.bits, element("shade").checked));
}

/** Lets everything follow a change of the text or of its marks. */
function changed() {
  encoded = encode(draft.text);
  reader.update(encoded.ids);
  render();
  control();
  later("store", 300, store);
  later("refresh", 200, refresh);
}

/** Reads on, while nothing else is asked for. */
async function refresh() {
  if (run || !reader.opening) return;
  const shade = element("shade");
  const done = await reader.refresh(() => { if (shade.checked) later("render", 30, render); });
  if (!done) later("refresh", 200, refresh);
}

/** Puts a change of the draft into the field, with the cursor behind it. */
function put({at, removed, inserted}) {
  field.setRangeText(inserted, at, at + removed.length, "end");
  field.setSelectionRange(at + inserted.length, at + inserted.length);
}

/** Takes over what a person has typed into the field. */
function typed() {
  const change = changeBetween(draft.text, field.value);
  if (!change.removed && !change.inserted) return;
  offers.close();
  draft.replace(change, "typing");
  changed();
  reportUnknown();
  later("offer", PAUSE, offerAfterPause);
}

/** Reports something, and which characters the model does not know. */
function reportUnknown(text = "") {
  const unknown = new Set(encoded.skipped.map(({character}) => character));
  const left = unknown.size ? `Left out, because the model does not know them: ${[...unknown].slice(0, 20).join(" ")}` : "";
  report([text, left].filter(Boolean).join(". "));
}

/** Offers words if a person has paused while typing. */
function offerAfterPause() {
  const {selectionStart: from, selectionEnd: to} = field, within = /^[\p{L}\p{M}\p{N}]/u.test(draft.text.slice(from));
  const ready = element("offers").checked && document.activeElement === field && !offers.isOpen;
  if (ready && from === to && !within) offer("words");
}

/** Offers alternatives at the cursor, or in place of a word. */
function offer(kind, {asked = false, word = undefined} = {}) {
  if (run || element("words").disabled) return;
  const place = word ? word.from : field.selectionEnd;
  const prefix = draft.text.slice(0, place).match(/[\p{L}\p{M}\p{N}]*$/u)[0];
  const random = generator(crypto.getRandomValues(new Uint32Array(1))[0]);
  const choose = logits => draw(logits, +element("temperature").value, +element("top-p").value, random);
  clearTimeout(timers.offer);
  later("refresh", 1000, refresh);
  offers.open(reader, {kind, word, asked, place, prefix, id: idAt(place)}, choose);
}

/** Offers what a person asks for: words, after them sentences, or other words if the cursor is within one. */
function ask() {
  const {selectionStart: from, selectionEnd: to} = field, word = wordAt(draft.text, from);
  const within = word && word.from <= from && to <= word.to && (from < to || (word.from < from && from < word.to));
  if (offers.isOpen && !offers.word) offer(offers.kind === "words" ? "sentences" : "words", {asked: true});
  else offer("words", {asked: true, word: within ? word : undefined});
}

/** Offers other words for the word that is clicked. */
function clicked(event) {
  offers.close();
  const word = wordAt(draft.text, field.selectionStart);
  const whole = word && field.selectionStart === field.selectionEnd && isOn(word.from, word.to, event.clientX, event.clientY);
  if (whole) offer("words", {asked: true, word});
}

/** Takes an alternative; after a next word or sentence, offers what could follow. */
function take(n) {
  const {options, place, word, kind, asked} = offers, text = options[n]?.text;
  if (text === undefined) return;
  const change = {at: place, removed: word?.text ?? "", inserted: text};
  offers.close();
  draft.replace(change, "choice");
  put(change);
  changed();
  reveal(field.selectionEnd);
  if (word) tell(`${text.trim()} in place of ${word.text}`);
  else offer(kind, {asked});
}

/** Takes a step back, or does it again. */
function back(step) {
  halt();
  offers.close();
  const change = draft[step]();
  if (!change) return;
  put(change);
  changed();
  reveal(field.selectionEnd);
  tell({undo: "Undone", redo: "Redone"}[step]);
}

/** Accepts what the model wrote. */
function accept() {
  if (!draft.accept()) return;
  changed();
  tell("Accepted");
}

/** Sets the buttons, and moves the focus from one that goes to one that takes its place. */
function control() {
  const [go, stop] = [element("continue"), element("stop")], focused = document.activeElement;
  go.hidden = !!run;
  stop.hidden = !run;
  if (run && focused === go) stop.focus();
  if (!run && focused === stop) go.focus();
  const ready = !!reader.opening && !run;
  for (const id of ["continue", "words", "sentences"]) element(id).disabled = !ready;
  element("accept").disabled = !draft.marks.length;
  element("undo").disabled = !draft.done.length;
  element("redo").disabled = !draft.undone.length;
  if (focused.disabled) field.focus();
  field.setAttribute("aria-busy", !!run);
}

/** Puts what the model has drawn into the text. */
function flush() {
  if (!run.drawn.length) return;
  const id = idAt(run.at), follow = cursorAt(run.at).top < innerHeight, drawn = run.drawn.splice(0);
  const change = {at: run.at, removed: "", inserted: drawn.map(one => characters[one.id]).join("")};
  draft.replace(change, run.number);
  put(change);
  changed();
  reader.wrote(id, drawn);
  if (element("shade").checked) render();
  run.at += change.inserted.length;
  if (follow) reveal(run.at);
}

/** Ends the writing of the model. */
function halt() {
  if (!run || run.stopped) return;
  run.stopped = true;
  reader.stop();
  flush();
}

/** Returns the random seed that is set, or a new one. */
function randomSeed() {
  const given = element("random-seed").value.trim();
  return given === "" ? crypto.getRandomValues(new Uint32Array(1))[0] : Math.abs(Math.trunc(+given)) % 4294967296;
}

/** Lets the model go on at the cursor. */
async function write() {
  if (run || !reader.opening) return;
  offers.close();
  clearTimeout(timers.offer);
  const at = field.selectionEnd, seed = randomSeed(), length = +element("length").value;
  run = {number: ++runs, at, drawn: [], stopped: false, written: 0, bits: 0};
  control();
  report("Reading the text ...");
  const start = await reader.at(idAt(at), true), began = performance.now();
  if (start && !run.stopped) await stream(start, length, generator(seed));
  const {written, bits} = run, rate = written / (performance.now() - began) * 1000;
  run = null;
  const each = written ? `, ${count(rate)} a second, ${(bits / written).toFixed(2)} bits each` : "";
  changed();
  reportUnknown(`${count(written)} characters written${each}; random seed ${seed}`);
}

/** Draws characters one by one, and shows them in turns. */
async function stream({logits, state}, length, random) {
  let shown = performance.now();
  report("Writing ...");
  while (run.written < length) {
    const id = draw(logits, +element("temperature").value, +element("top-p").value, random);
    const read = await step([id], state);
    if (run.stopped) return;
    run.drawn.push({id, logits, state: read.state});
    run.bits += bitsOf(logits, id);
    run.written++;
    [[logits], state] = [read.logits, read.state];
    if (performance.now() - shown < FRAME) continue;
    flush();
    shown = performance.now();
  }
  flush();
}

/** Keeps the text in the browser's storage. A browser may refuse. */
function store() {
  const settings = SETTINGS.map(id => element(id).type === "checkbox" ? element(id).checked : element(id).value);
  try {
    localStorage.setItem(KEY, JSON.stringify({text: draft.text, marks: draft.marks, settings}));
  } catch (error) {
    report(`This browser does not keep the text (${error.name}): save it as a file.`);
  }
}

/** Takes the text and the settings from the browser's storage. */
function restore() {
  let kept = {};
  try {
    kept = JSON.parse(localStorage.getItem(KEY)) ?? {};
  } catch { /* there is no storage, or it was written by something else */ }
  const {text = "", marks = [], settings = []} = kept;
  SETTINGS.forEach((id, n) => {
    if (settings[n] === undefined) return;
    if (element(id).type === "checkbox") element(id).checked = settings[n]; else element(id).value = settings[n];
  });
  draft = new Draft(text, marks);
  field.value = text;
  field.setSelectionRange(text.length, text.length);
}

/** Saves the text as a file. */
function save() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([draft.text], {type: "text/plain;charset=utf-8"}));
  link.download = `${about.name}.txt`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  report(`Saved as ${link.download}`);
}

/** Compares this browser's greedy text with the one that the model wrote when this page was made. */
async function verify() {
  const {seed, text, ties} = about.parity, parity = element("parity"), wanted = Array.from(text);
  let {logits, state} = await step(Array.from(seed, c => ids.get(c)), zeroState);
  logits = logits.at(-1);
  const began = performance.now();
  let equal = true;
  for (const [place, character] of wanted.entries()) {
    const id = ids.get(character), read = await step([id], state);
    equal &&= likeliest(logits) === id || ties.includes(place);
    [[logits], state] = [read.logits, read.state];
  }
  parity.dataset.speed = wanted.length / (performance.now() - began) * 1000;
  parity.dataset.result = equal ? "equal" : "different";
  parity.textContent = equal
    ? `\u2713 Verified: this browser writes the same ${wanted.length} characters as the model.`
    : "\u2717 This browser does not compute what the model computes: do not trust its text.";
}

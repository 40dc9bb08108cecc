const COMMANDS = {
  "Ctrl-Enter": write,
  "Ctrl-Shift-Enter": accept,
  "Ctrl- ": ask,
  "Alt-ArrowDown": ask,
  "Ctrl-z": () => back("undo"),
  "Ctrl-Shift-z": () => back("redo"),
  "Ctrl-y": () => back("redo"),
  "Ctrl-s": save,
};
const MOVES = ["ArrowDown", "ArrowUp", "ArrowLeft", "ArrowRight", "Home", "End", "PageUp", "PageDown"];
const BUTTONS = {
  continue: write, stop: halt, accept, save, undo: () => back("undo"), redo: () => back("redo"),
  words: () => offer("words", {asked: true}), sentences: () => offer("sentences", {asked: true}),
};

/** Returns a key's name with what is held down, such as "Ctrl-z". On a Mac, Command is Ctrl too. */
function nameOf({key, ctrlKey, metaKey, altKey, shiftKey}) {
  const held = [(ctrlKey || metaKey) && "Ctrl-", altKey && "Alt-", shiftKey && "Shift-"].filter(Boolean).join("");
  return held + (held && key.length === 1 ? key.toLowerCase() : key);
}

/** Handles the keys of the whole page. */
function pressed(event) {
  if (event.isComposing) return;
  const name = nameOf(event), inField = event.target === field;
  const elsewhere = event.target.type === "number" && /z|y| $/.test(name);  // a field with an undo of its own
  if (inField && offers.isOpen && offers.key(name)) event.preventDefault();
  else if (name === "Escape") halt();
  else if (COMMANDS[name] && !elsewhere) {
    event.preventDefault();
    COMMANDS[name]();
  } else if (MOVES.includes(event.key)) offers.close();
}

/** Handles what is about to be typed: a number takes an alternative, and the browser's own undo is ours. */
function beforeTyped(event) {
  const step = {historyUndo: "undo", historyRedo: "redo"}[event.inputType];
  const number = event.inputType === "insertText" && /^[1-9]$/.test(event.data) ? +event.data : 0;
  const isTaken = number > 0 && number <= offers.options.length;
  if (step || isTaken) event.preventDefault();
  if (step) back(step);
  else if (isTaken) take(number - 1);
  else halt();
}

/** Connects the settings: each slider shows its value, and all are kept. */
function connectSettings() {
  const wide = matchMedia("(min-width: 64rem)"), settings = element("settings");
  for (const id of ["temperature", "top-p", "length"]) {
    const showValue = () => { element(`${id}-value`).textContent = (+element(id).value).toLocaleString("en"); };
    element(id).addEventListener("input", showValue);
    showValue();
  }
  for (const id of SETTINGS) element(id).addEventListener("change", store);
  for (let level = 1; level <= about.levels; level++) {
    const text = level === about.levels ? `${level}+` : `${level}`;
    element("legend").append(Object.assign(document.createElement("span"), {className: `b${level}`, textContent: text}));
  }
  const shade = () => { element("legend").hidden = !element("shade").checked; };
  element("shade").addEventListener("change", () => { shade(); render(); });
  shade();
  element("form").addEventListener("submit", event => event.preventDefault());
  const fold = () => { settings.open = wide.matches; };
  wide.addEventListener("change", fold);
  fold();
}

/** Connects the text field and the buttons. */
function connect() {
  field.addEventListener("beforeinput", beforeTyped);
  field.addEventListener("input", typed);
  field.addEventListener("click", clicked);
  field.addEventListener("blur", () => offers.close());
  document.addEventListener("keydown", pressed);
  for (const [id, act] of Object.entries(BUTTONS)) {
    element(id).addEventListener("mousedown", event => event.preventDefault());  // the field keeps the focus
    element(id).addEventListener("click", event => {
      // The keys of the list are the field's. A touch would bring up the keyboard of a phone.
      if (["words", "sentences"].includes(id) && event.pointerType !== "touch") field.focus();
      act();
    });
  }
  addEventListener("resize", () => offers.close());
  addEventListener("pagehide", () => { halt(); store(); });
}

/** Opens the page. */
async function start() {
  element("name").textContent = about.name;
  element("description").textContent = about.description;
  if (location.hash === "#verify") return verify();
  restore();
  connectSettings();
  connect();
  changed();
  field.disabled = false;
  await verify();
  await reader.open();
  changed();
  reportUnknown();
}

start();

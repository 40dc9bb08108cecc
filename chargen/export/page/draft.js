const MOST_STEPS = 1000;  // that can be taken back
const JOIN_MILLISECONDS = 2000;  // within which typed characters are one step

/** Returns marks, ranges [from, to) in order, after the replacement of text; what is replaced loses its mark. */
function movedMarks(marks, {at, removed, inserted}) {
  const end = at + removed.length, by = inserted.length - removed.length;
  const start = place => place < at ? place : Math.max(place, end) + by;
  const stop = place => place <= at ? place : place >= end ? place + by : at;
  return marks.map(([from, to]) => [start(from), stop(to)]).filter(([from, to]) => from < to);
}

/** Returns marks with another one, joined with those that it touches. */
function withMark(marks, [from, to]) {
  const touching = marks.filter(mark => mark[0] <= to && mark[1] >= from), all = [[from, to], ...touching];
  const joined = [Math.min(...all.map(mark => mark[0])), Math.max(...all.map(mark => mark[1]))];
  return [...marks.filter(mark => !touching.includes(mark)), joined].sort((a, b) => a[0] - b[0]);
}

/** Returns what was changed between two texts: `removed` at a place, and `inserted` there. */
function changeBetween(old, text) {
  const most = Math.min(old.length, text.length);
  let at = 0, tail = 0;
  while (at < most && old[at] === text[at]) at++;
  while (tail < most - at && old.at(-1 - tail) === text.at(-1 - tail)) tail++;
  return {at, removed: old.slice(at, old.length - tail), inserted: text.slice(at, text.length - tail)};
}

/**
 * The text, its marks and its history, apart from where it is shown. A mark is on what the model wrote and nobody has
 * accepted yet. Places count UTF-16 units, as in a text field.
 */
class Draft {
  constructor(text = "", marks = []) {
    this.text = text;
    this.marks = marks;
    this.done = [];  // steps: {at, removed, inserted, before, after, by, time}, with the marks before and after
    this.undone = [];
  }

  /**
   * Replaces text as a step.
   *
   * `by` says who did: "typing" and "choice" accept what the model wrote before them; a number is a run of the model,
   * whose parts are one step and are marked.
   */
  replace(change, by, time = Date.now()) {
    const end = change.at + change.inserted.length;
    let after = movedMarks(this.marks, change);
    if (typeof by === "number") after = withMark(after, [change.at, end]);
    else if (change.inserted) after = after.map(([from, to]) => [Math.max(from, end), to]).filter(([from, to]) => from < to);
    const step = {...change, before: this.marks, after, by, time}, last = this.done.at(-1);
    const joined = last && this.undone.length === 0 ? this.joined(last, step) : null;
    if (joined) this.done.pop();
    if (!joined || joined.removed || joined.inserted) this.done.push(joined ?? step);
    if (this.done.length > MOST_STEPS) this.done.shift();
    this.undone = [];
    this.apply(change, after);
  }

  /** Returns two steps as one, or null if they are to be taken back one by one. A typed word is a step. */
  joined(last, step) {
    const {at, removed, inserted} = step, end = last.at + last.inserted.length;
    if (last.by !== step.by || step.by === "choice" || step.by === "accept") return null;
    if (step.by === "typing") {
      if (step.time - last.time > JOIN_MILLISECONDS) return null;
      if (inserted && /\s$/.test(last.inserted) && /^\S/.test(inserted)) return null;
    }
    if (last.inserted && at >= last.at && at + removed.length === end) {
      return {...step, at: last.at, removed: last.removed, inserted: last.inserted.slice(0, at - last.at) + inserted,
        before: last.before};
    }
    if (!last.inserted && !inserted && at + removed.length === last.at) {
      return {...step, removed: removed + last.removed, before: last.before};
    }
    return null;
  }

  /** Replaces text without a step. */
  apply({at, removed, inserted}, marks) {
    this.text = this.text.slice(0, at) + inserted + this.text.slice(at + removed.length);
    this.marks = marks;
  }

  /** Accepts what the model wrote: removes all marks, as a step. Returns whether there were any. */
  accept() {
    if (!this.marks.length) return false;
    this.done.push({at: this.marks.at(-1)[1], removed: "", inserted: "", before: this.marks, after: [], by: "accept"});
    this.undone = [];
    this.marks = [];
    return true;
  }

  /** Takes the last step back; returns the change of the text, or undefined if there is none. */
  undo() {
    const step = this.done.pop();
    if (!step) return undefined;
    this.undone.push(step);
    const change = {at: step.at, removed: step.inserted, inserted: step.removed};
    this.apply(change, step.before);
    return change;
  }

  /** Does again the step that was taken back last; returns the change of the text, or undefined if there is none. */
  redo() {
    const step = this.undone.pop();
    if (!step) return undefined;
    this.done.push(step);
    this.apply(step, step.after);
    return step;
  }
}

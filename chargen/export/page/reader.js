const SPACING = 32;  // characters between two kept states: a state of 1 x 512 has 4 kB, 20,000 characters have 2.5 MB
const NEAR = 64;  // characters behind a change, within which a state of the text before it is of no use
const STATE_BYTES = 2 ** 25;  // of all kept states, at most; beyond, the spacing doubles

/** Returns what may replace a character that the model does not know: a look-alike, its other case, or its parts. */
function candidates(character) {
  const alike = about.lookalikes.filter(row => row.includes(character)).flatMap(row => Array.from(row));
  const other = character === character.toLowerCase() ? character.toUpperCase() : character.toLowerCase();
  return [character, ...alike, other, character.normalize("NFD")];
}

/** Returns the ids that stand for a character, or none if the model does not know it. */
const repaired = (() => {
  const known = new Map();
  return character => {
    if (!known.has(character)) {
      const found = candidates(character).map(one => Array.from(one)).find(one => one.every(c => ids.has(c)));
      known.set(character, (found ?? []).map(c => ids.get(c)));
    }
    return known.get(character);
  };
})();

/**
 * Returns a text as the model reads it: ids (n); for each, the place in the text where its character ends; and the
 * characters that are left out, because the model does not know them, each with its place.
 *
 * A letter and its accents are composed if the model does not know them apart.
 */
function encode(text) {
  const found = {ids: [], ends: [], skipped: []};
  let at = 0;
  for (const cluster of text.match(/\P{M}\p{M}*|\p{M}+/gu) ?? []) {
    const known = cluster.length === 1 || Array.from(cluster).every(c => ids.has(c));
    const parts = Array.from(known ? cluster : cluster.normalize("NFC"));
    const end = at + cluster.length;
    for (const [n, part] of parts.entries()) {
      at = n === parts.length - 1 ? end : Math.min(at + part.length, end);
      const read = repaired(part);
      if (!read.length) found.skipped.push({character: part, from: at - part.length, to: at});
      for (const id of read) {
        found.ids.push(id);
        found.ends.push(at);
      }
    }
  }
  return found;
}

/**
 * The text as the model has read it: its ids, the surprisal of each in bits, and states along it.
 *
 * A kept state is fresh if it is that of the text as it is. Behind a change, states of the text before the change stay
 * until `refresh` has read the new text, so that questions there are answered at once.
 */
class Reader {
  constructor() {
    this.ids = [];
    this.bits = [];  // NaN where they are not known yet
    this.spacing = SPACING;
    this.kept = [{place: 0, state: zeroState, fresh: true}];  // in order; the state before the character at `place`
    this.latest = null;  // the last answer
    this.turn = 0;  // a reading that began in an earlier turn is out of date
    this.asked = 0;  // questions so far
    this.count = 0;  // characters of the text that had to be read again for the last one
  }

  /** Reads the opening, after which the first character of a text is predicted. */
  async open() {
    const {logits} = await step(Array.from(about.opening, c => ids.get(c)), zeroState);
    this.opening = logits.at(-1);
  }

  /** Takes the ids of the text after a change. */
  update(ids) {
    const old = this.ids, most = Math.min(old.length, ids.length), by = ids.length - old.length;
    let same = 0, tail = 0;
    while (same < most && old[same] === ids[same]) same++;
    while (tail < most - same && old.at(-1 - tail) === ids.at(-1 - tail)) tail++;
    if (same === most && !by) return;
    const after = old.length - tail;  // the first character behind the change
    this.kept = this.kept.filter(({place}) => !place || place < same || place >= after + NEAR).map(
      one => one.place && one.place >= same ? {...one, place: one.place + by, fresh: false} : one);
    if (this.latest && this.latest.place > same) this.latest = null;
    this.bits = [...this.bits.slice(0, same), ...Array(ids.length - same - tail).fill(NaN), ...this.bits.slice(after)];
    this.ids = ids;
    this.turn++;
  }

  /** Gives up what is being read. */
  stop() {
    this.turn++;
  }

  /** Keeps a state. A fresh one replaces those before it that are not. */
  keep(one) {
    const stay = this.kept.filter(({place, fresh}) => place < one.place && (fresh || !one.fresh));
    const behind = this.kept.filter(({place}) => place > one.place);
    this.kept = [...stay, one, ...behind];
    if (this.kept.length * one.state.byteLength > STATE_BYTES) {
      this.spacing *= 2;
      this.kept = this.kept.filter((_, n) => n % 2 === 0);
    }
  }

  /** Returns the last kept state before a place; with `fresh`, the last one before any that is not fresh. */
  before(place, fresh) {
    const stale = fresh ? this.kept.findIndex(one => !one.fresh) : -1;
    return this.kept.slice(0, stale < 0 ? undefined : stale).findLast(one => one.place < place) ?? this.kept[0];
  }

  /**
   * Reads from a kept state to a place, a block at a time; yields the place, the logits and the state after each. It
   * ends early if it is given up or the text changes.
   */
  async *read(from, to) {
    const turn = this.turn, {fresh} = from;
    let {place, state} = from;
    while (place < to) {
      const end = Math.min(place + this.spacing, to), read = await step(this.ids.slice(place, end), state);
      if (turn !== this.turn) return;
      if (fresh) this.learn(place + 1, read.logits);
      if (end - place === this.spacing) this.keep({place: end, state: read.state, fresh});
      [place, state] = [end, read.state];
      yield {place, state, logits: read.logits.at(-1), fresh};
    }
  }

  /** Notes the surprisal of characters from a place on, given the logits before each. */
  learn(place, logits) {
    logits.forEach((before, n) => {
      if (place + n < this.ids.length) this.bits[place + n] = bitsOf(before, this.ids[place + n]);
    });
  }

  /** Takes over what the model has just written at a place: for each character its id, logits before, state after. */
  wrote(place, written) {
    if (written.some(({id}, n) => this.ids[place + n] !== id)) return;
    this.learn(place, written.map(({logits}) => logits));
    written.forEach(({state}, n) => {
      const end = place + n + 1;
      if (end - this.before(end, true).place >= this.spacing) this.keep({place: end, state, fresh: true});
    });
  }

  /**
   * Returns the logits and the state after the text before a place, or null if that was given up or the text has changed.
   *
   * With `exact`, all of the text before it is read as it is. Without, a change more than NEAR characters before it
   * may be left out.
   */
  async at(place, exact = false) {
    this.asked++;
    this.count = 0;
    if (!place) return {logits: this.opening, state: zeroState};
    if (this.latest?.place === place && (this.latest.fresh || !exact)) return this.latest;
    const from = this.before(place, exact);
    this.count = place - from.place;
    for await (const read of this.read(from, place)) {
      if (read.place === place) return this.latest = read;
    }
    return null;
  }

  /**
   * Reads what is not read yet as it is, and calls `show` after each block. It ends early if the text changes or a
   * question is asked, which must not wait. Returns whether it came to the end.
   */
  async refresh(show) {
    const asked = ++this.asked, from = this.before(Infinity, true);
    let end = from.place;
    this.learn(0, [this.opening]);
    for await (const {place} of this.read(from, this.ids.length)) {
      end = place;
      show();
      if (asked !== this.asked) return false;
    }
    if (this.latest && !this.latest.fresh) this.latest = null;
    return end === this.ids.length;
  }
}

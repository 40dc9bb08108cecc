const letters = new Set(about.letters), joiners = new Set(about.joiners);
const LONGEST_WORD = 40;  // characters after which a word counts as ended
const LONGEST_SENTENCE = 400;

const likeliest = logits => logits.reduce((best, logit, id) => logit > logits[best] ? id : best, 0);

/** Returns numbers that are proportional to the probabilities (V) at a temperature above 0. */
function weightsOf(logits, temperature) {
  const highest = logits[likeliest(logits)];
  return Array.from(logits, logit => Math.exp((logit - highest) / temperature));
}

/** Returns the natural logarithms of the probabilities (V). */
function logsOf(logits) {
  const highest = logits[likeliest(logits)];
  const whole = highest + Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit - highest), 0));
  return Array.from(logits, logit => logit - whole);
}

/** Returns the surprisal of a character in bits. */
function bitsOf(logits, id) {
  return -logsOf(logits)[id] / Math.LN2;
}

/** Draws a character: temperature first, then top-p, then the draw. `random()` is from 0 up to 1. */
function draw(logits, temperature, topP, random) {
  if (temperature === 0) return likeliest(logits);
  const weights = weightsOf(logits, temperature);
  let whole = weights.reduce((a, b) => a + b, 0);
  if (topP < 1) {
    const order = weights.map((_, id) => id).sort((a, b) => weights[b] - weights[a] || a - b);
    let kept = 0, sum = 0;
    while (kept < order.length && sum < topP * whole) sum += weights[order[kept++]];
    for (const id of order.slice(kept)) weights[id] = 0;
    whole = sum;
  }
  let point = random() * whole;
  let last = 0;
  for (let id = 0; id < weights.length; id++) {
    if (!weights[id]) continue;
    last = id;
    if ((point -= weights[id]) < 0) return id;
  }
  return last;
}

/** Returns SFC32 (Doty-Humphrey's PractRand), started from a random seed: numbers from 0 up to 1. */
function generator(seed) {
  let a = seed >>> 0, b = 0x9e3779b9, c = 0x243f6a88, counter = 1;
  const next = () => {
    const sum = (a + b + counter++) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = ((c << 21) | (c >>> 11)) + sum | 0;
    return (sum >>> 0) / 4294967296;
  };
  for (let i = 0; i < 15; i++) next();
  return next;
}

/** Returns the largest numbers' places, at most so many, the largest first. */
function highest(numbers, count) {
  const best = [];
  numbers.forEach((number, place) => {
    if (number === -Infinity || (best.length === count && number <= numbers[best[count - 1]])) return;
    let at = best.length;
    while (at && numbers[best[at - 1]] < number) at--;
    best.splice(at, 0, place);
    best.length = Math.min(best.length, count);
  });
  return best;
}

/** Returns the children of a row of the search: the row itself if its word may end here, and its longer ones. */
function childrenOf(row, width) {
  const logs = logsOf(row.logits), begun = Array.from(row.text).some(c => letters.has(c));
  const joined = begun && joiners.has(row.text.at(-1));
  let end = 0;  // the probability that the word ends here
  logs.forEach((log, id) => {
    if (!begun || letters.has(characters[id])) return;
    if (joined) logs[id] = -Infinity;  // an apostrophe or a hyphen stands between two letters
    else if (!joiners.has(characters[id])) {
      end += Math.exp(log);
      logs[id] = -Infinity;
    }
  });
  const longer = highest(logs, width).map(id => ({row, id, log: row.log + logs[id]}));
  return end ? [{text: row.text, log: row.log + Math.log(end), whole: true}, ...longer] : longer;
}

/**
 * Returns the most probable continuations to the end of a word that a beam search finds, each a text and a probability,
 * the most probable first. What comes before the word is included. Those that differ only in the spaces and line feeds
 * before the word count as the same.
 */
async function likelyWords(count, {logits, state}) {
  const width = count + Math.floor(count / 2) + 1;
  let rows = [{text: "", log: 0, logits, state}], done = [];
  for (let length = 0; rows.length && length < LONGEST_WORD; length++) {
    const children = rows.flatMap(row => childrenOf(row, width));
    const best = [...done, ...children].sort((a, b) => b.log - a.log).slice(0, width);
    done = best.filter(one => one.whole);
    rows = [];
    for (const {row, id, log, whole} of best) {
      if (whole) continue;
      const read = await step([id], row.state);
      rows.push({text: row.text + characters[id], log, logits: read.logits[0], state: read.state});
    }
  }
  const found = new Map();
  for (const {text, log} of [...done, ...rows].sort((a, b) => b.log - a.log)) {
    const word = text.trim().replace(/\s+/g, " ");
    if (word && !found.has(word)) found.set(word, {text, probability: Math.exp(log)});
  }
  return [...found.values()].slice(0, count);
}

/** Draws different continuations to the end of a sentence, at most so many; `choose(logits)` draws a character. */
async function drawnSentences(count, {logits, state}, choose) {
  const found = new Set();
  for (let tries = 0; tries < 2 * count && found.size < count; tries++) {
    let text = "", at = {logits, state};
    for (let length = 0; length < LONGEST_SENTENCE; length++) {
      const id = choose(at.logits);
      if (/[.!?\u2026]["'\u201d\u2019\u00bb\u203a)\]]*$/.test(text) && /\s/.test(characters[id])) break;
      text += characters[id];
      const read = await step([id], at.state);
      at = {logits: read.logits[0], state: read.state};
    }
    if (text.trim()) found.add(text);
  }
  return Array.from(found, text => ({text}));
}

/** Returns the probability of a word, its end included, given the logits and the state before it. */
async function wordProbability(ids, {logits, state}) {
  const read = (await step(ids, state)).logits, before = [logits, ...read];
  const ends = logsOf(read.at(-1)).filter((_, id) => !letters.has(characters[id]) && !joiners.has(characters[id]));
  const log = ids.reduce((sum, id, n) => sum + logsOf(before[n])[id], 0);
  return Math.exp(log) * ends.reduce((sum, end) => sum + Math.exp(end), 0);
}

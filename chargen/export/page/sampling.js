const letters = new Set(about.letters), joiners = new Set(about.joiners);
const LONGEST_WORD = 40;  // characters after which a word counts as ended
const LONGEST_SENTENCE = 240;  // that fits into the list on a phone
const SENTENCE_END = /[.!?\u2026]["'\u201d\u2019\u00bb\u203a)\]]*$/;
const MOST_READ = 200;  // characters that a search for words reads, at most; it needs some 60
const CHILDREN = 64;  // characters that a search tries after a prefix

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

/** Returns what may follow a prefix: the prefix itself if its word may end there, and those that are longer. */
function childrenOf({text, log: before}, {logits, state}) {
  const logs = logsOf(logits), begun = Array.from(text).some(c => letters.has(c)), joined = begun && joiners.has(text.at(-1));
  let end = 0;  // the probability that the word ends here
  logs.forEach((log, id) => {
    const character = characters[id], isOuter = !letters.has(character) && !joiners.has(character);
    if (!begun || letters.has(character) || (!joined && !isOuter)) return;
    if (!joined) end += Math.exp(log);  // an apostrophe or a hyphen stands between two letters
    logs[id] = -Infinity;
  });
  const longer = highest(logs, CHILDREN).map(id => ({text: text + characters[id], log: before + logs[id], id, state}));
  return end ? [{text, log: before + Math.log(end), whole: true}, ...longer] : longer;
}

/**
 * Returns the most probable continuations to the end of a word, each a text and a probability, the most probable first.
 *
 * What comes before the word is included. Those that differ only in the spaces and line feeds before the word count as
 * the same. This is a best-first search: no continuation is more probable than the prefixes that it has.
 */
async function likelyWords(count, start) {
  const found = new Map(), queue = childrenOf({text: "", log: 0}, start);
  const add = ({text, log}) => {
    const word = text.trim().replace(/\s+/g, " ");
    if (!found.has(word)) found.set(word, {text, probability: Math.exp(log)});
  };
  for (let read = 0; queue.length && read < MOST_READ && found.size < count;) {
    const [best] = highest(queue.map(({log}) => log), 1), [next] = queue.splice(best, 1);
    if (next.whole) add(next);
    else if (next.text.length < LONGEST_WORD) {
      const {logits, state} = await step([next.id], next.state);
      queue.push(...childrenOf(next, {logits: logits[0], state}));
      read++;
    }
  }
  queue.filter(one => one.whole).sort((a, b) => b.log - a.log).forEach(add);
  return [...found.values()].slice(0, count);
}

/**
 * Draws different continuations to the end of a sentence, at most so many; `choose(logits)` draws a character. Those that
 * do not end in LONGEST_SENTENCE characters come last.
 */
async function drawnSentences(count, start, choose) {
  const whole = new Set(), cut = new Set();
  for (let n = 0; n < count; n++) {
    let text = "", {logits, state} = start, ended = false;
    while (text.length < LONGEST_SENTENCE) {
      const id = choose(logits);
      ended = SENTENCE_END.test(text) && /\s/.test(characters[id]);
      if (ended) break;
      text += characters[id];
      const read = await step([id], state);
      [[logits], state] = [read.logits, read.state];
    }
    if (text.trim()) (ended ? whole : cut).add(text);
  }
  return [...whole, ...cut].map(text => ({text}));
}

/** Returns the probability of a word, its end included, given the logits and the state before it. */
async function wordProbability(ids, {logits, state}) {
  const {logits: read} = await step(ids, state), before = [logits, ...read];
  const ends = logsOf(read.at(-1)).filter((_, id) => !letters.has(characters[id]) && !joiners.has(characters[id]));
  const log = ids.reduce((sum, id, n) => sum + logsOf(before[n])[id], 0);
  return Math.exp(log) * ends.reduce((sum, end) => sum + Math.exp(end), 0);
}

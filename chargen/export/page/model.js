"use strict";

/** Shows an error in place of the result of the verification. */
function broken(reason) {
  const parity = document.getElementById("parity");
  parity.dataset.result = "broken";
  parity.textContent = `\u2717 This page does not work here: ${reason}`;
}
addEventListener("error", event => broken(event.message));
addEventListener("unhandledrejection", event => broken(event.reason));

const about = JSON.parse(document.getElementById("about").textContent);
const characters = Array.from(about.vocabulary);
const ids = new Map(characters.map((character, id) => [character, id]));

/** Returns the bytes of a script element that holds base64. */
function bytes(id) {
  const text = atob(document.getElementById(id).textContent);
  const array = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) array[i] = text.charCodeAt(i);
  return array;
}

/**
 * The weights and their products. A matrix has a row for each output. The rows of an LSTM layer are its gates i, f, g,
 * o; its columns are the input, then h. Rows are padded with zeros to a multiple of 16 columns.
 */
class Model {
  constructor() {
    const {embedding, layers, units} = about.model;
    const shapes = [[characters.length, embedding]];
    for (let n = 0; n < layers; n++) shapes.push([4 * units, (n ? units : embedding) + units]);
    shapes.push([characters.length, units]);
    const padded = columns => Math.ceil(columns / 16) * 16;
    let size = Math.max(4 * units, characters.length) + 16;  // floats: a product's output, then x and matrix of each layer
    for (const [rows, columns] of shapes) size += padded(columns) * (rows + 1);
    this.multiply = this.compiled(size);
    const quantized = about.numbers === "int8";
    const numbers = quantized ? new Int8Array(bytes("matrices").buffer) : new Float32Array(bytes("matrices").buffer);
    const vectors = new Float32Array(bytes("vectors").buffer);
    this.y = this.floats.subarray(0, Math.max(4 * units, characters.length));
    let at = Math.ceil(this.y.length / 16) * 16, number = 0, vector = 0;
    [this.embedding, ...this.layers] = shapes.map(([rows, columns], n) => {
      const width = padded(columns), x = at, m = at + width;
      at += width * (rows + 1);
      for (let row = 0; row < rows; row++) {
        const scale = quantized ? vectors[vector++] : 1;
        for (let column = 0; column < columns; column++) this.floats[m + row * width + column] = scale * numbers[number++];
      }
      const bias = n ? vectors.subarray(vector, vector += rows) : null;
      return {rows, columns, width, x, m, bias};
    });
    this.dense = this.layers.pop();
    this.units = units;
  }

  /**
   * Sets up the memory, and returns the product of a matrix and the vector before it. WebAssembly is about ten times as
   * fast as the loop that replaces it where a browser has none.
   */
  compiled(size) {
    try {
      const {memory, product} = new WebAssembly.Instance(new WebAssembly.Module(bytes("product"))).exports;
      memory.grow(Math.ceil(size * 4 / 65536));
      this.floats = new Float32Array(memory.buffer);
      return ({m, x, rows, width}) => product(4 * m, 4 * x, 0, rows, 4 * width);
    } catch {
      this.floats = new Float32Array(size);
      return ({m, x, rows, width}) => {
        for (let row = 0; row < rows; row++, m += width) {
          let sum = 0;
          for (let column = 0; column < width; column++) sum += this.floats[m + column] * this.floats[x + column];
          this.y[row] = sum;
        }
      };
    }
  }

  /** The state before any text, a Float32Array of h and c of each layer. */
  get zeroState() {
    return new Float32Array(2 * this.units * this.layers.length);
  }

  /** Reads one character; returns the logits of the next one (V) and the new state. The old state is left as it is. */
  read(id, state) {
    const {floats, units, embedding} = this, after = this.zeroState, start = embedding.m + id * embedding.width;
    let below = floats.subarray(start, start + embedding.columns);
    this.layers.forEach((layer, n) => {
      const [h, c, end] = [2 * n, 2 * n + 1, 2 * n + 2].map(part => part * units);
      floats.set(below, layer.x);
      floats.set(state.subarray(h, c), layer.x + below.length);
      this.multiply(layer);
      below = after.subarray(h, c);
      this.gates(layer.bias, state.subarray(c, end), below, after.subarray(c, end));
    });
    floats.set(below, this.dense.x);
    this.multiply(this.dense);
    return {logits: this.dense.bias.map((bias, v) => bias + this.y[v]), state: after};
  }

  /** Computes h and c of a layer from the old c and the product of its matrix. */
  gates(bias, before, h, c) {
    const {y, units} = this, logistic = z => 1 / (1 + Math.exp(-z));
    for (let u = 0; u < units; u++) {
      const i = logistic(y[u] + bias[u]), f = logistic(y[units + u] + bias[units + u]);
      const g = Math.tanh(y[2 * units + u] + bias[2 * units + u]);
      const o = logistic(y[3 * units + u] + bias[3 * units + u]);
      c[u] = f * before[u] + i * g;
      h[u] = o * Math.tanh(c[u]);
    }
  }
}

/** Lets the browser draw and handle input, after slices of 12 milliseconds. A timer would add 4 to each. */
let slice = 0;
async function pause() {
  if (performance.now() < slice || location.hash === "#verify") return;
  await new Promise(resolve => {
    const {port1, port2} = new MessageChannel();
    port1.onmessage = () => { port1.close(); resolve(); };
    port2.postMessage(0);
  });
  slice = performance.now() + 12;
}

const model = new Model();
const zeroState = model.zeroState;

/**
 * Reads characters. This is all that the rest of the page knows of the model.
 *
 * Takes their ids (n) and the state before them. Returns the logits after each of them, n arrays of V numbers, and the
 * state after the last one. Calls may overlap, because a state is never changed.
 */
async function step(ids, state) {
  const logits = [];
  for (const id of ids) {
    const read = model.read(id, state);
    logits.push(read.logits);
    state = read.state;
    await pause();
  }
  return {logits, state};
}

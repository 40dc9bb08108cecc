"""Write text from the model beside this file, with NumPy alone: python sample.py [SEED [LENGTH [TEMPERATURE]]]."""

import json
import sys
from pathlib import Path

import numpy as np

data = Path(__file__).with_name("model.safetensors").read_bytes()
start = 8 + int.from_bytes(data[:8], "little")  # the header's length, the JSON header, the arrays
header = json.loads(data[8:start])
about = json.loads(header.pop("__metadata__")["chargen"])
places = {name: (slice(*entry["data_offsets"]), entry["shape"]) for name, entry in header.items()}
weights = {name: np.frombuffer(data[start:][place], "<f4").reshape(shape) for name, (place, shape) in places.items()}
characters = about["vocabulary"]
zero_state = [(np.zeros(about["model"]["units"], np.float32),) * 2] * about["model"]["layers"]  # h and c of each layer


def step(id, state):
    """Read one character; return the logits (V,) of the next, and the state after it."""
    x, after = weights["embedding"][id], []
    for n, (h, c) in enumerate(state):
        kernel, recurrent, bias = (weights[f"lstm_{n}/{name}"] for name in ("kernel", "recurrent_kernel", "bias"))
        i, f, g, o = np.split(x @ kernel + h @ recurrent + bias, 4)
        i, f, o = (0.5 + 0.5 * np.tanh(0.5 * gate) for gate in (i, f, o))  # the logistic function
        c = f * c + i * np.tanh(g)
        x = o * np.tanh(c)
        after.append((x, c))
    return x @ weights["dense/kernel"] + weights["dense/bias"], after


if __name__ == "__main__":
    seed, length, temperature = (*sys.argv[1:], *("The", "500", "0.7")[len(sys.argv) - 1 :])
    text, state, noise = "", zero_state, np.random.default_rng()
    known = "".join(c for c in seed if c in characters) or characters[0]
    for at in range(len(known) + int(length)):
        # The most likely character after Gumbel noise on the logits is a draw by their probabilities.
        text += known[at] if at < len(known) else characters[np.argmax(logits)]  # noqa: F821
        logits, state = step(characters.index(text[at]), state)
        logits += float(temperature) * noise.gumbel(size=len(characters))
    print(text)

"""chargen writes in the style of a book: a character-level LSTM, trained with its state carried through the text.

The one idea: a character model is a function ``logits, state = model(ids, state)``. Training, evaluation and sampling
are the same fold over it: windows with a gradient, windows without, one character at a time with a draw. The state is a
value that the caller carries.

From a text to a text::

    files --documents--> text --vocabulary--> ids (N,) --corpus--> train | validation
    train ids --streams--> x, y (B, T), begins (B,)
    x, state --model--> logits, state' --training--> run: config.json, metrics.jsonl, model and checkpoint
    model file --clone--> the same weights with a state of one row, in NumPy --generate--> text

Letters with one meaning everywhere: B streams (the batch size), T characters in a window, V characters in the
vocabulary, E embedding width, H units of an LSTM layer, L LSTM layers, N characters in a text.

Losses are nats per character inside, and bits per character (bpc) wherever a person reads them.

The public face, each part loaded when it is first used:

- `Clone`: a model that writes text, in NumPy. ``Clone.open("runs/book")``
- `open_model`: the model file of a run. ``open_model("runs/book")``
- `stateful_clone`: the same weights as a stock stateful Keras model. ``stateful_clone(open_model("runs/book"))``
- `ChargenError`: the error that each of them raises.
"""

TYPE_CHECKING = False  # as typing has it, which takes 5 ms to import
if TYPE_CHECKING:
    from chargen.network.stock import stateful_clone as stateful_clone
    from chargen.store.run import open_model as open_model
    from chargen.writing.clone import Clone as Clone

__all__ = ["ChargenError", "Clone", "__version__", "open_model", "stateful_clone"]
__version__ = "0.1.0"

_LOADED_LATER = {
    "Clone": "chargen.writing.clone",
    "open_model": "chargen.store.run",
    "stateful_clone": "chargen.network.stock",
}


class ChargenError(Exception):
    """An error that a person can correct. The message is one line: what is wrong, where, and what to do."""


def __getattr__(name: str) -> object:
    """Load a part of the public face, so that ``import chargen`` stays fast."""
    if name not in _LOADED_LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LOADED_LATER[name]), name)

"""chargen writes in the style of a book: a character-level LSTM, trained with its state carried through the text.

The one idea: a character model is a function ``logits, state = model(ids, state)``. Training, evaluation and
sampling are the same fold over it: windows with a gradient, windows without, one character at a time with a draw.
The state is a value that the caller carries.

The way of a text through the package::

    files --corpus--> text --vocabulary--> ids (N,) --split--> train | validation
    train ids --streams--> x, y (B, T), begins (B,)
    x, state --model--> logits, state' --train--> a run: config.json, metrics.jsonl, model.safetensors, checkpoint
    model.safetensors --clone--> the same weights with a state of one row, in NumPy --generate--> text

Letters, with one meaning everywhere: B streams (the batch size), T characters in a window, V characters in the
vocabulary, E embedding width, H units of an LSTM layer, L LSTM layers, N characters in a text.

Losses are nats per character inside, bits per character (bpc) wherever a person reads them.
"""

TYPE_CHECKING = False  # as typing has it, which takes 5 ms to import
if TYPE_CHECKING:
    from chargen.writing.clone import Clone as Clone

__version__ = "0.1.0"


class ChargenError(Exception):
    """What a person can put right: the message is one line that says what is wrong, where, and what to do."""


def __getattr__(name: str) -> object:
    """Let ``from chargen import Clone`` work without making ``import chargen`` slow."""
    if name == "Clone":
        from chargen.writing.clone import Clone

        return Clone
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

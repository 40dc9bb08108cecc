"""The conversion from nats to bits."""

from math import log


def bits(nats: float) -> float:
    """Convert nats to bits. Losses are in nats inside the program, in bits per character (bpc) in its output."""
    return nats / log(2)

"""The conversion from nats to bits."""

from math import log


def bits(nats: float) -> float:
    """Convert nats to bits: losses are nats inside the program, bits per character (bpc) wherever a person reads them."""
    return nats / log(2)

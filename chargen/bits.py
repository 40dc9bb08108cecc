"""Nats and bits: the only place that knows ln 2."""

from math import log


def bits(nats: float) -> float:
    """Turn nats into bits: losses are nats inside, bits per character (bpc) wherever a person reads them."""
    return nats / log(2)

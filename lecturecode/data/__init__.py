"""Data sets: embedded, generated, and one that is downloaded on request."""

from .digits import Digits, digits
from .mnist import mnist
from .moons import moons
from .patterns import bars_and_stripes

__all__ = ["Digits", "bars_and_stripes", "digits", "mnist", "moons"]

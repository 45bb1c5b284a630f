"""The training loop, its batches and its optimizer. None of them knows a model."""

from .batches import Batches
from .loop import Step, adam, fit

__all__ = ["Batches", "Step", "adam", "fit"]

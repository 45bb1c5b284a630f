"""The training loop, its batches and its optimizer, averages, validation, checkpoints. None of them knows a model."""

from .batches import Batches
from .checkpoint import Checkpoint
from .ema import Ema
from .loop import Step, adam, fit
from .validation import Best, mean_score

__all__ = ["Batches", "Best", "Checkpoint", "Ema", "Step", "adam", "fit", "mean_score"]

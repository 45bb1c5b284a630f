"""Networks: functions from tensors to tensors, without any probability."""

from .mlp import linear, mlp

__all__ = ["linear", "mlp"]

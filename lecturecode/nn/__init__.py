"""Networks: functions from tensors to tensors, without any probability."""

from .conv import conv_decoder, conv_encoder
from .mlp import linear, mlp

__all__ = ["conv_decoder", "conv_encoder", "linear", "mlp"]

"""Networks: functions from tensors to tensors, without any probability."""

from .conditional import ConditionalMLP, zeroed
from .conv import conv_decoder, conv_encoder
from .mlp import linear, mlp
from .time import LevelEmbedding, ladder, sinusoids
from .unet import UNet

__all__ = [
    "ConditionalMLP",
    "LevelEmbedding",
    "UNet",
    "conv_decoder",
    "conv_encoder",
    "ladder",
    "linear",
    "mlp",
    "sinusoids",
    "zeroed",
]

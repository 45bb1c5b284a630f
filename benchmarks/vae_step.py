"""The training step of a variational autoencoder, beside the loop that the well-known pytorch example uses.

    python benchmarks/vae_step.py                   # prints the ratios, writes benchmarks/results/vae_step.json

Both sides train one architecture on the same 60,000 black and white images (the digits of the package, enlarged),
batch 128, Adam, one CPU thread:

example   a DataLoader over torchvision's MNIST class and ToTensor, image by image (where torchvision is not installed,
          over a class that takes the same steps, some 10 % quicker), nn.Module with two heads, torch.randn_like, the
          summed binary cross entropy of a sigmoid, loss.item() in every step, a line printed every tenth;
ours      lecturecode.training.fit over Batches, adam(model), VAE.loss.

Before any timing, both losses and all gradients are compared on the same weights and the same noise. Then the two
alternate, round by round; CPU time of the process, minimum and median, and the ratio of the minima.
"""

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from report import asked, processor
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from lecturecode import __version__, seeded
from lecturecode.data import digits
from lecturecode.training import Batches, adam, fit
from lecturecode.vae import VAE, Bernoulli, Decoder, Encoder, StandardNormal

BATCH, IMAGES = 128, 60_000
SHAPES = {"784-400-20": (28, 400, 20), "64-256-8": (8, 256, 8)}  # side, hidden, latent
RESULTS = Path(__file__).parent / "results" / "vae_step.json"


class Images(Dataset):
    """Images and labels as in the usual MNIST class: item by item from bytes to PIL, and by `to_tensor` to floats."""

    def __init__(self, levels: Tensor, labels: Tensor):
        self.levels, self.labels, self.transform = levels, labels, to_tensor

    def __len__(self) -> int:
        return len(self.levels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        levels, label = self.levels[index], int(self.labels[index])
        return self.transform(Image.fromarray(levels.numpy())), label


def dataset(levels: Tensor) -> Dataset:
    """torchvision's MNIST, its files replaced by these images, or the stand-in."""
    labels = torch.zeros(len(levels), dtype=torch.int64)
    try:
        from torchvision import datasets, transforms
    except ImportError:
        return Images(levels, labels)

    class Held(datasets.MNIST):
        def __init__(self):
            datasets.VisionDataset.__init__(self, ".", transform=transforms.ToTensor())
            self.data, self.targets = levels, labels

    return Held()


def to_tensor(image: Image.Image) -> Tensor:
    """The steps of the usual transform: its checks, a copy of the bytes, channels first, floats in [0, 1]."""
    if not isinstance(image, Image.Image):
        raise TypeError(f"{type(image)} is no PIL image")
    kinds = {"I": np.int32, "I;16": np.int16, "F": np.float32}
    pixels = torch.from_numpy(np.array(image, kinds.get(image.mode, np.uint8), copy=True))
    pixels = pixels.view(image.size[1], image.size[0], len(image.getbands()))
    pixels = pixels.permute((2, 0, 1)).contiguous()
    return pixels.to(dtype=torch.get_default_dtype()).div(255) if pixels.dtype == torch.uint8 else pixels


class Example(nn.Module):
    """The example's architecture: n → hidden (ReLU) → μ and log σ², latent → hidden (ReLU) → n (sigmoid)."""

    def __init__(self, n: int, hidden: int, m: int):
        super().__init__()
        self.n, self.m = n, m
        self.fc1, self.fc21, self.fc22 = nn.Linear(n, hidden), nn.Linear(hidden, m), nn.Linear(hidden, m)
        self.fc3, self.fc4 = nn.Linear(m, hidden), nn.Linear(hidden, n)

    def forward(self, x: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        inner = F.relu(self.fc1(x.view(-1, self.n)))
        mean, log_variance = self.fc21(inner), self.fc22(inner)
        std = torch.exp(0.5 * log_variance)
        h = mean + (torch.randn_like(std) if noise is None else noise) * std
        return torch.sigmoid(self.fc4(F.relu(self.fc3(h)))), mean, log_variance


def example_loss(output: Tensor, x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    reconstruction = F.binary_cross_entropy(output, x.view(-1, output.shape[-1]), reduction="sum")
    return reconstruction - 0.5 * torch.sum(1 + log_variance - mean.pow(2) - log_variance.exp())


def example_steps(model: Example, images: Tensor) -> Iterator[None]:
    loader = DataLoader(dataset(images), batch_size=BATCH, shuffle=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    with open(os.devnull, "w") as log:
        while True:
            model.train()
            total = 0.0
            for number, (x, _) in enumerate(loader):
                optimizer.zero_grad()
                output, mean, log_variance = model(x)
                loss = example_loss(output, x, mean, log_variance)
                loss.backward()
                total += loss.item()
                optimizer.step()
                if number % 10 == 0:
                    print(f"{number * len(x)}/{len(images)} Loss: {loss.item() / len(x):.6f}", file=log)
                yield


def ours(example: Example) -> VAE:
    """The same network with the same weights: the two heads are the two halves of one layer."""

    def affine(*layers: nn.Linear) -> nn.Linear:
        joint = nn.Linear(layers[0].in_features, sum(layer.out_features for layer in layers))
        joint.weight.data = torch.cat([layer.weight.detach() for layer in layers])
        joint.bias.data = torch.cat([layer.bias.detach() for layer in layers])
        return joint

    encoder = nn.Sequential(affine(example.fc1), nn.ReLU(), affine(example.fc21, example.fc22))
    decoder = nn.Sequential(affine(example.fc3), nn.ReLU(), affine(example.fc4))
    return VAE(Encoder(encoder), Decoder(decoder, Bernoulli()), StandardNormal(example.m))


def our_steps(model: VAE, images: Tensor) -> Iterator[object]:
    rng = seeded(1)
    x = (images.flatten(1) > 127).float()
    return fit(partial(model.loss, rng=rng), Batches(x, BATCH, rng, steps=10**9), adam(model, 1e-3))


def gate(example: Example, images: Tensor) -> dict[str, float]:
    """Largest relative difference of the loss and of the gradients: same weights, same noise."""
    model = ours(example)
    x = (images[:BATCH].flatten(1) > 127).float()
    noise = torch.randn((1, BATCH, example.m), generator=seeded(2))[0]
    output, mean, log_variance = example(x, noise)
    theirs, mine = example_loss(output, x, mean, log_variance) / BATCH, model.loss(x, seeded(2))
    layers = [(example.fc1,), (example.fc21, example.fc22), (example.fc3,), (example.fc4,)]
    wanted = torch.autograd.grad(theirs, [p for group in layers for layer in group for p in (layer.weight, layer.bias)])
    got = torch.autograd.grad(mine, list(model.parameters()))
    joint = [wanted[0], wanted[1], torch.cat([wanted[2], wanted[4]]), torch.cat([wanted[3], wanted[5]]), *wanted[6:]]
    slopes = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(got, joint, strict=True))
    difference = {"loss": abs(mine.item() / theirs.item() - 1), "gradient": slopes}
    if not max(difference.values()) < 1e-4:
        raise SystemExit(f"the two losses differ: {difference}; nothing was timed")
    return difference


def timed(steps: Iterator[object], count: int) -> float:
    """CPU milliseconds a step."""
    start = time.process_time()
    for _ in range(count):
        next(steps)
    return 1e3 * (time.process_time() - start) / count


def measure(shape: str, rounds: int, count: int) -> dict:
    side, hidden, m = SHAPES[shape]
    torch.manual_seed(0)
    grey = digits("training").grey.view(-1, 1, 8, 8)
    strokes = F.interpolate(grey, size=(side, side), mode="bilinear" if side > 8 else "nearest")[:, 0] >= 0.5
    images = (255 * strokes.to(torch.uint8)).repeat(IMAGES // len(strokes), 1, 1)
    example = Example(side * side, hidden, m)
    difference = gate(example, images)
    contestants: dict[str, Iterator[object]] = {
        "ours": our_steps(ours(example), images),
        "example": example_steps(example, images),
    }
    for steps in contestants.values():
        timed(steps, 20)
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, steps in contestants.items():
            times[name].append(timed(steps, count))

    def ratio(of: Callable) -> float:
        return round(of(times["example"]) / of(times["ours"]), 2)

    return {
        "gate": difference,
        "milliseconds a step": {
            name: {"minimum": round(min(t), 3), "median": round(statistics.median(t), 3)} for name, t in times.items()
        },
        "example over ours": {"minimum": ratio(min), "median": ratio(statistics.median)},
    }


def main() -> None:
    options = asked(__doc__, 9, RESULTS, steps=dict(type=int, default=100, help="steps a round"))
    torch.set_num_threads(1)
    dataset(torch.zeros(1, 8, 8, dtype=torch.uint8))  # torchvision is imported here, or is not there
    report = {
        "machine": {"processor": processor(), "system": platform.system(), "threads": 1},
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": getattr(sys.modules.get("torchvision"), "__version__", "not installed: the stand-in"),
            "lecturecode": __version__,
        },
        "setting": {"batch": BATCH, "rounds": options.rounds, "steps a round": options.steps, "clock": "CPU time"},
        "shapes": {},
    }
    for shape in SHAPES:
        report["shapes"][shape] = result = measure(shape, options.rounds, options.steps)
        print(shape, json.dumps(result, indent=1))
    options.keep.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Makes tests/diffusion/diffusers.json: what diffusers' DDPM and DDIM schedulers do, step by step.

    python -m venv diffusers-env
    diffusers-env/bin/pip install diffusers==0.42.1 torch==2.13.0 --constraint constraints.txt
    diffusers-env/bin/python benchmarks/diffusers_reference.py

It imports nothing of lecturecode. diffusers makes its β in float32; they are kept, and all that diffusers derives from
them is made anew in float64 and put in their place, so that both sides can be compared to 1e-9. The denoiser is the
closed form x̂_0 = 0.8 tanh x + 0.1, given to the scheduler as the noise or the velocity that it asks for. Times are
written as in the book: t = 0 is the data, and diffusers' timestep τ is t = τ + 1.
"""

import json
from pathlib import Path

import diffusers  # pyright: ignore[reportMissingImports]
import numpy as np
import torch
from diffusers import DDIMScheduler, DDPMScheduler  # pyright: ignore[reportMissingImports]
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr  # pyright: ignore[reportMissingImports]

TARGET = Path(__file__).parents[1] / "tests" / "diffusion" / "diffusers.json"
LINEAR = {"num_train_timesteps": 1000, "beta_schedule": "linear"}
COSINE = {"num_train_timesteps": 1000, "beta_schedule": "squaredcos_cap_v2"}
SHORT = {"num_train_timesteps": 40, "beta_schedule": "linear", "beta_end": 0.2}
V = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
BETAS = {"linear": LINEAR, "cosine": COSINE, "short": SHORT}

# name: scheduler, betas, other settings, calls, η
RUNS = {
    "ddpm small, all steps": (DDPMScheduler, "short", {"variance_type": "fixed_small"}, 40, None),
    "ddpm large, all steps": (DDPMScheduler, "short", {"variance_type": "fixed_large"}, 40, None),
    "ddpm small, leading": (DDPMScheduler, "linear", {"variance_type": "fixed_small"}, 10, None),
    "ddpm large, trailing": (
        DDPMScheduler,
        "cosine",
        {"variance_type": "fixed_large", "timestep_spacing": "trailing"},
        10,
        None,
    ),
    "ddpm small, zero terminal": (
        DDPMScheduler,
        "linear",
        {"variance_type": "fixed_small", "timestep_spacing": "trailing", **V},
        10,
        None,
    ),
    "ddim 0, leading": (DDIMScheduler, "linear", {}, 10, 0.0),
    "ddim 0.5, leading": (DDIMScheduler, "linear", {}, 10, 0.5),
    "ddim 1, leading": (DDIMScheduler, "linear", {}, 10, 1.0),
    "ddim 0, linspace": (DDIMScheduler, "linear", {"timestep_spacing": "linspace"}, 7, 0.0),
    "ddim 0.5, trailing": (DDIMScheduler, "cosine", {"timestep_spacing": "trailing"}, 10, 0.5),
    "ddim 0, zero terminal": (DDIMScheduler, "linear", {"timestep_spacing": "trailing", **V}, 10, 0.0),
    "ddim 0.5, zero terminal": (DDIMScheduler, "linear", {"timestep_spacing": "trailing", **V}, 10, 0.5),
}


def clean(x: torch.Tensor) -> torch.Tensor:
    return 0.8 * torch.tanh(x) + 0.1


def in_float64(scheduler, zero_terminal: bool) -> torch.Tensor:
    """The float32 betas, after everything that was made of them is made again in float64."""
    betas = type(scheduler)(**{**scheduler.config, "rescale_betas_zero_snr": False}).betas
    wide = betas.double()
    scheduler.betas = rescale_zero_terminal_snr(wide) if zero_terminal else wide
    scheduler.alphas = 1 - scheduler.betas
    scheduler.alphas_cumprod = torch.cumprod(scheduler.alphas, 0)
    one = torch.ones((), dtype=torch.float64)
    if hasattr(scheduler, "final_alpha_cumprod"):
        scheduler.final_alpha_cumprod = one
    else:
        scheduler.one = one
    return betas


def run(kind, settings: dict, calls: int, eta: float | None) -> dict:
    scheduler = kind(clip_sample=False, **settings)
    zero = bool(settings.get("rescale_betas_zero_snr"))
    in_float64(scheduler, zero)
    scheduler.set_timesteps(calls)
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rng = torch.Generator().manual_seed(1)
    record = {"zero_terminal": zero, "eta": eta, "variance": settings.get("variance_type"), "start": x.tolist()}
    record["steps"] = steps = []
    for tau in scheduler.timesteps.tolist():
        alpha, sigma = scheduler.alphas_cumprod[tau].sqrt(), (1 - scheduler.alphas_cumprod[tau]).sqrt()
        eps = (x - alpha * clean(x)) / sigma
        answer = alpha * eps - sigma * clean(x) if zero else eps
        state = rng.get_state()
        noise = torch.randn(3, 2, generator=rng, dtype=torch.float64)
        if eta is None:
            before = scheduler.previous_timestep(tau)
            rng.set_state(state)  # the scheduler draws the same again
            x = scheduler.step(answer, tau, x, generator=rng).prev_sample
        else:
            before = tau - scheduler.config.num_train_timesteps // calls
            x = scheduler.step(answer, tau, x, eta=eta, variance_noise=noise).prev_sample
        assert x.dtype == torch.float64
        steps.append({"t": tau + 1, "r": max(int(before) + 1, 0), "noise": noise.tolist(), "after": x.tolist()})
    return record


def main() -> None:
    betas = {name: in_float64(DDPMScheduler(**settings), False) for name, settings in BETAS.items()}
    facts = {
        "made by": "benchmarks/diffusers_reference.py",
        "versions": {"diffusers": diffusers.__version__, "torch": torch.__version__.split("+")[0]},
        "betas": {name: [float(str(np.float32(b))) for b in values] for name, values in betas.items()},
        "runs": {
            name: {"betas": which, **run(kind, {**BETAS[which], **settings}, calls, eta)}
            for name, (kind, which, settings, calls, eta) in RUNS.items()
        },
    }
    TARGET.write_text(json.dumps(facts) + "\n", encoding="utf-8")
    print(f"{TARGET}: {TARGET.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()

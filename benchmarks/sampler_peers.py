"""The deterministic samplers of diffusers, k-diffusion and azula behind one call, for `samplers.py`.

    peer.run(model, x, sigmas) -> x at sigmas[-1]        x = x_0 + σ ε at sigmas[0], model(x, σ) = x̂_0, σ a float

It imports nothing of lecturecode. Each library runs its own code; what is set from outside is the grid: the tables σ
(or ᾱ = 1/(1 + σ²)) of a diffusers scheduler are replaced, in float64, after set_timesteps, k-diffusion takes σ as they
are, azula a schedule that has them. Schedulers made for α² + σ² = 1 see x/√(1 + σ²). Four of diffusers' classes cast
x to float32 in each step (Euler, EDM Euler and DPM-Solver multistep; DDIM's table is float32 but replaced).

A step of two calls, or a start that asks twice, takes as many steps as fit into the calls asked for. Left out: samplers
that draw noise where nothing turns it off; step-size control (dpm_adaptive), which has no fixed number of calls; PNDM's
Runge–Kutta start (twelve calls, and no pipeline sets it); flow-matching schedulers, the same Euler and Heun in σ/(1+σ).
"""

import logging
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import distribution

import azula.denoise  # pyright: ignore[reportMissingImports]
import azula.noise  # pyright: ignore[reportMissingImports]
import azula.sample  # pyright: ignore[reportMissingImports]
import diffusers  # pyright: ignore[reportMissingImports]
import torch
from k_diffusion_alone import sampling
from torch import Tensor

F64 = torch.float64
Model = Callable[[Tensor, float], Tensor]
logging.getLogger("diffusers").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", module="diffusers")


@dataclass(frozen=True)
class Peer:
    """`steps(calls, to_zero)` is how many steps fit; `ends` which ends it takes: at σ = 0, at the last σ > 0."""

    run: Callable[[Model, Tensor, Tensor], Tensor]
    steps: Callable[[int, bool], int] = lambda calls, to_zero: calls
    ends: tuple[bool, ...] = (True, False)


def twice(calls: int, to_zero: bool) -> int:
    """Two calls a step, one in a step to σ = 0."""
    return (calls + 1) // 2 if to_zero else calls // 2


def preserving(x: Tensor, sigma: float) -> Tensor:
    return x / math.sqrt(1 + sigma**2)


def exploding(x: Tensor, sigma: float) -> Tensor:
    return x * math.sqrt(1 + sigma**2)


def by_diffusers(kind: str, settings: dict, model: Model, x: Tensor, sigmas: Tensor) -> Tensor:
    """A scheduler with a table of σ."""
    to_zero, n = bool(sigmas[-1] == 0), len(sigmas) - 1
    edm, doubled = kind.startswith("EDM"), kind in ("HeunDiscreteScheduler", "KDPM2DiscreteScheduler")
    ending = {"final_sigmas_type": "zero" if to_zero else "sigma_min"}
    asked = {} if edm else {"prediction_type": "epsilon" if kind.startswith("KDPM2") else "sample"}
    solver = any(name in kind for name in ("DPMSolver", "UniPC"))
    scheduler = getattr(diffusers, kind)(**settings, **asked, **(ending if solver else {}))
    scheduler.set_timesteps(n)
    table = sigmas.to(F64)
    if doubled:
        inner = table[1:-1].repeat_interleave(2)
        table = torch.cat([table[:1], inner, table[-1:], *([] if to_zero else [table[-1:]])])
        if kind.startswith("KDPM2"):  # its second call is at the geometric mean
            middle = (sigmas[:-1].log() / 2 + sigmas[1:].log() / 2).exp()
            scheduler.sigmas_interpol = torch.cat([sigmas[:1], middle.repeat_interleave(2)])
    calls = len(table) - 1
    scheduler.sigmas, scheduler.timesteps = table, torch.arange(calls, dtype=F64)
    scheduler.set_begin_index(0)
    scheduler._step_index = None
    scaled = any(name in kind for name in ("DPMSolverM", "DPMSolverS", "DEIS", "UniPC", "SASolver")) and not edm
    if scaled:
        x = preserving(x, float(table[0]))
    for k in range(calls):
        sigma = float(table[k])
        if doubled and k % 2 == 1:
            sigma = float(scheduler.sigmas_interpol[k]) if kind.startswith("KDPM2") else float(table[k])
        here = exploding(x, sigma) if scaled else x
        answer = model(here.to(F64), sigma)
        if kind.startswith("KDPM2"):
            answer = (here - answer) / sigma
        if edm:  # it undoes its own preconditioning
            spread = scheduler.config.sigma_data
            total = sigma**2 + spread**2
            answer = (answer - spread**2 / total * here) / (sigma * spread / math.sqrt(total))
        scheduler.is_scale_input_called = True
        x = scheduler.step(answer, scheduler.timesteps[k], x).prev_sample
    return exploding(x, float(table[-1])) if scaled else x


def by_position(kind: str, model: Model, x: Tensor, sigmas: Tensor) -> Tensor:
    """DDIM, PNDM and iPNDM of diffusers, whose tables are ᾱ by number of step."""
    n = len(sigmas) - 1
    kept = 1 / (1 + sigmas.to(F64).square())
    if kind == "IPNDMScheduler":
        scheduler = diffusers.IPNDMScheduler(n)
        scheduler.set_timesteps(n)
        scheduler.alphas, scheduler.betas = kept.sqrt(), (1 - kept).sqrt()
        scheduler.timesteps = torch.arange(n)
        positions = list(range(n))
    else:
        asked = {"clip_sample": False} if kind == "DDIMScheduler" else {"skip_prk_steps": True}
        scheduler = getattr(diffusers, kind)(num_train_timesteps=n, **asked)
        scheduler.set_timesteps(n)
        scheduler.alphas_cumprod, scheduler.final_alpha_cumprod = kept[:-1].flip(0), kept[-1]
        positions = [n - 1 - t for t in scheduler.timesteps.tolist()]
    x = preserving(x, float(sigmas[0]))
    for t, position in zip(scheduler.timesteps, positions, strict=True):
        sigma = float(sigmas[position])
        here = exploding(x, sigma)
        x0_hat = model(here, sigma)
        answer = (here - x0_hat) / sigma
        if kind == "IPNDMScheduler":  # it asks for v
            answer = (answer - sigma * x0_hat) / math.sqrt(1 + sigma**2)
        x = scheduler.step(answer, t, x).prev_sample
    return exploding(x, float(sigmas[-1]))


K_DIFFUSION = sampling()


def by_k_diffusion(name: str, settings: dict, model: Model, x: Tensor, sigmas: Tensor) -> Tensor:
    def answer(x: Tensor, sigma: Tensor) -> Tensor:
        return model(x, float(sigma.flatten()[0]))

    return getattr(K_DIFFUSION, name)(answer, x, sigmas, disable=True, **settings)


def fast(model: Model, x: Tensor, sigmas: Tensor) -> Tensor:
    """k-diffusion's dpm_fast, on its own equal steps in log σ: only the two ends of the grid are used."""

    def answer(x: Tensor, sigma: Tensor) -> Tensor:
        return model(x, float(sigma.flatten()[0]))

    first, last = float(sigmas[0]), float(sigmas[-1])
    return K_DIFFUSION.sample_dpm_fast(answer, x, last, first, len(sigmas) - 1, disable=True)


class Listed(azula.noise.Schedule):
    """α = 1 and the σ of a grid, at the times 1, 1 − 1/n … 0; with α² + σ² = 1 where `scaled`."""

    def __init__(self, sigmas: Tensor, scaled: bool):
        self.sigmas, self.scaled = sigmas.to(F64).flip(0), scaled

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        sigma = self.sigmas[(t * (len(self.sigmas) - 1)).round().long()]
        alpha = (1 + sigma.square()).rsqrt() if self.scaled else torch.ones_like(sigma)
        return alpha, alpha * sigma


class Asked(azula.denoise.Denoiser):
    def __init__(self, model: Model, schedule: Listed):
        super().__init__()
        self.model, self.schedule = model, schedule

    def forward(self, x_t: Tensor, t: Tensor, **kwargs) -> azula.denoise.DiracPosterior:
        alpha, sigma = self.schedule(t)
        return azula.denoise.DiracPosterior(self.model(x_t / alpha, float(sigma / alpha)))


def by_azula(name: str, settings: dict, scaled: bool, model: Model, x: Tensor, sigmas: Tensor) -> Tensor:
    schedule = Listed(sigmas, scaled)
    sampler = getattr(azula.sample, name)(
        Asked(model, schedule), steps=len(sigmas) - 1, silent=True, dtype=F64, **settings
    )
    first, last = (schedule(torch.tensor(t, dtype=F64))[0] for t in (1.0, 0.0))
    return sampler(first * x) / last


def peers() -> dict[str, Peer]:
    found: dict[str, Peer] = {}

    def scheduler(name: str, kind: str, steps: Callable | None = None, **settings) -> None:
        peer = partial(by_diffusers, kind, settings)
        found[f"diffusers {name}"] = Peer(peer, steps) if steps else Peer(peer)

    scheduler("Euler", "EulerDiscreteScheduler")
    scheduler("EDM Euler", "EDMEulerScheduler")
    scheduler("Heun", "HeunDiscreteScheduler", twice)
    scheduler("KDPM2", "KDPM2DiscreteScheduler", twice)
    scheduler("LMS", "LMSDiscreteScheduler")
    for order in (2, 3):
        for algorithm in ("dpmsolver++", "dpmsolver"):
            for middle in ("midpoint", "heun") if order == 2 else ("midpoint",):
                same = {"solver_order": order, "algorithm_type": algorithm, "solver_type": middle}
                label = f"{order} {algorithm} {middle}" if order == 2 else f"{order} {algorithm}"
                scheduler(f"DPM-Solver multistep {label}", "DPMSolverMultistepScheduler", **same)
                scheduler(f"DPM-Solver singlestep {label}", "DPMSolverSinglestepScheduler", **same)
        for algorithm in ("dpmsolver++", "dpmsolver"):
            same = {"solver_order": order, "algorithm_type": algorithm, "lower_order_final": False}
            if algorithm == "dpmsolver" and order == 2:
                same["solver_type"] = "heun"
            scheduler(f"DPM-Solver multistep {order} {algorithm}, to the end", "DPMSolverMultistepScheduler", **same)
        scheduler(f"EDM DPM-Solver {order}", "EDMDPMSolverMultistepScheduler", solver_order=order)
        for whole in (False, True):
            about = {"solver_order": order, "lower_order_final": not whole}
            scheduler(f"DEIS {order}{', to the end' * whole}", "DEISMultistepScheduler", **about)
        for kind in ("bh1", "bh2"):
            for clean in (True, False):
                for whole in (False, True):
                    label = f"UniPC {order} {kind} {'x0' if clean else 'noise'}{', to the end' * whole}"
                    about = {"solver_type": kind, "predict_x0": clean, "lower_order_final": not whole}
                    scheduler(label, "UniPCMultistepScheduler", solver_order=order, **about)
        scheduler(
            f"SA-Solver {order}, no noise",
            "SASolverScheduler",
            predictor_order=order,
            corrector_order=order,
            tau_func=lambda t: 0.0,
        )
    found["diffusers DDIM"] = Peer(partial(by_position, "DDIMScheduler"))
    found["diffusers iPNDM"] = Peer(partial(by_position, "IPNDMScheduler"))
    found["diffusers PNDM"] = Peer(partial(by_position, "PNDMScheduler"), lambda calls, to_zero: calls - 1)

    for name, steps, settings in (
        ("euler", None, {}),
        ("heun", twice, {}),
        ("dpm_2", twice, {}),
        ("lms", None, {"order": 2}),
        ("lms", None, {"order": 3}),
        ("lms", None, {"order": 4}),
        ("dpmpp_2m", None, {}),
        ("dpmpp_2s_ancestral", twice, {"eta": 0.0}),
        ("dpmpp_sde", twice, {"eta": 0.0, "noise_sampler": lambda sigma, reached: 0.0}),
        ("dpmpp_2m_sde", None, {"eta": 0.0, "noise_sampler": lambda sigma, reached: 0.0}),
        (
            "dpmpp_2m_sde",
            None,
            {"eta": 0.0, "noise_sampler": lambda sigma, reached: 0.0, "solver_type": "heun"},
        ),
        ("dpmpp_3m_sde", None, {"eta": 0.0, "noise_sampler": lambda sigma, reached: 0.0}),
    ):
        about = "".join(f" {value}" for key, value in settings.items() if key in ("order", "solver_type"))
        peer = partial(by_k_diffusion, f"sample_{name}", settings)
        label = f"k-diffusion {name}{about}" + (", eta 0" if "eta" in settings else "")
        found[label] = Peer(peer, steps) if steps else Peer(peer)
    found["k-diffusion dpm_fast"] = Peer(fast, ends=(False,))

    for name in ("DDIM", "Euler"):
        found[f"azula {name}"] = Peer(partial(by_azula, f"{name}Sampler", {}, False))
    found["azula Heun"] = Peer(partial(by_azula, "HeunSampler", {}, False), twice, ends=(False,))
    for order in (2, 3, 4):
        for name, ends in (
            ("zAB", (True, False)),
            ("vAB", (True, False)),
            ("zEAB", (False,)),
            ("xEAB", (False,)),
            ("REAB", (False,)),
        ):
            run = partial(by_azula, f"{name}Sampler", {"order": order}, False)
            found[f"azula {name} {order}"] = Peer(run, ends=ends)
        run = partial(by_azula, "REABSampler", {"order": order}, True)
        found[f"azula REAB {order}, scaled"] = Peer(run, ends=(False,))
    return found


def versions() -> dict[str, str]:
    return {name: distribution(name).version for name in ("diffusers", "k-diffusion", "azula")}

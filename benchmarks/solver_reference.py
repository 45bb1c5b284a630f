"""Makes tests/diffusion/solvers.json: what diffusers' and k-diffusion's solvers do, step by step.

    python -m venv diffusers-env
    diffusers-env/bin/pip install diffusers==0.42.1 scipy torch==2.13.0 tqdm --constraint constraints.txt
    diffusers-env/bin/pip install --no-deps k-diffusion==0.1.1.post1
    diffusers-env/bin/python benchmarks/solver_reference.py

It imports nothing of lecturecode. Of k-diffusion only sampling.py is run; what that file imports and these samplers do
not use stands as empty modules, since the package itself asks for a dozen others. diffusers makes its σ̃ = σ/α in
float32; they are kept, as float64, so that nothing else is rounded, but for the x that two of its schedulers cast to
float32 in each step. The denoiser is the closed form x̂_0 = 0.8 tanh(x)/(1 + σ̃) + 0.1.
"""

import json
from importlib.metadata import distribution
from pathlib import Path

import diffusers  # pyright: ignore[reportMissingImports]
import torch
from k_diffusion_alone import sampling

TARGET = Path(__file__).parents[1] / "tests" / "diffusion" / "solvers.json"
F64 = torch.float64
CHURN = {"s_churn": 2.0, "s_tmin": 0.05, "s_tmax": 30.0, "s_noise": 1.003}
KARRAS = {"sigma_min": 0.02, "sigma_max": 20.0}

# name: scheduler, settings, calls of set_timesteps
DIFFUSERS = {
    "dpm 2M": ("DPMSolverMultistepScheduler", {"solver_order": 2}, 10),
    "dpm 2M, to the last σ": ("DPMSolverMultistepScheduler", {"solver_order": 2, "final_sigmas_type": "sigma_min"}, 16),
    "dpm 3M": ("DPMSolverMultistepScheduler", {"solver_order": 3}, 10),
    "dpm 3M, to the last σ": ("DPMSolverMultistepScheduler", {"solver_order": 3, "final_sigmas_type": "sigma_min"}, 16),
    "edm 2M": ("EDMDPMSolverMultistepScheduler", {"solver_order": 2, **KARRAS}, 10),
    "edm 3M": ("EDMDPMSolverMultistepScheduler", {"solver_order": 3, **KARRAS}, 10),
    "edm 3M, long": ("EDMDPMSolverMultistepScheduler", {"solver_order": 3, **KARRAS}, 16),
    "heun": ("HeunDiscreteScheduler", {}, 8),
    "euler": ("EulerDiscreteScheduler", {}, 8),
}
K_DIFFUSION = {
    "k heun": ("sample_heun", {}),
    "k heun, churned": ("sample_heun", CHURN),
    "k 2M": ("sample_dpmpp_2m", {}),
    "k euler": ("sample_euler", {}),
}


def clean(x: torch.Tensor, relative: torch.Tensor) -> torch.Tensor:
    return 0.8 * torch.tanh(x) / (1 + relative) + 0.1


def start(scale: float) -> torch.Tensor:
    return scale * torch.randn(3, 2, generator=torch.Generator().manual_seed(0), dtype=F64)


def by_diffusers(kind: str, settings: dict, calls: int) -> dict:
    edm = kind.startswith("EDM")
    scheduler = getattr(diffusers, kind)(**settings, **({} if edm else {"prediction_type": "sample"}))
    scheduler.set_timesteps(calls)
    scheduler.sigmas = scheduler.sigmas.to(F64)
    preserving = kind.startswith("DPM")
    x = start(1.0 if preserving else scheduler.sigmas[0].item())
    record = {"preserving": preserving, "start": x.tolist(), "sigmas": scheduler.sigmas.tolist(), "after": []}
    for k, tau in enumerate(scheduler.timesteps):
        sigma = scheduler.sigmas[k]
        if not preserving:
            scheduler.scale_model_input(x, tau)
        answer = clean(x, sigma)
        if edm:  # it undoes its own preconditioning
            spread = scheduler.config.sigma_data
            total = sigma**2 + spread**2
            answer = (answer - spread**2 / total * x) / (sigma * spread / total.sqrt())
        x = scheduler.step(answer, tau, x).prev_sample
        assert x.dtype == F64
        record["after"].append(x.tolist())
    return record


def by_k_diffusion(module, name: str, settings: dict) -> dict:
    sigmas = module.get_sigmas_karras(8, 0.02, 20.0).double()
    x, seen, noises = start(sigmas[0].item()), [], []
    rng = torch.Generator().manual_seed(1)

    def draw(like):
        noises.append(torch.randn(like.shape, generator=rng, dtype=like.dtype))
        return noises[-1]

    def model(x, sigma):
        return clean(x, sigma[:, None])

    real, torch.randn_like = torch.randn_like, draw
    try:
        end = getattr(module, name)(model, x, sigmas, callback=lambda at: seen.append(at), disable=True, **settings)
    finally:
        torch.randn_like = real
    kicked = [at["i"] for at in seen if at["sigma_hat"] > at["sigma"]]
    return {
        "churn": settings,
        "start": x.tolist(),
        "sigmas": sigmas.tolist(),
        "noises": [noises[i].tolist() for i in kicked],
        "before": [at["x"].tolist() for at in seen],
        "end": end.tolist(),
    }


def main() -> None:
    module = sampling()
    facts = {
        "made by": "benchmarks/solver_reference.py",
        "versions": {
            "diffusers": diffusers.__version__,
            "k-diffusion": distribution("k-diffusion").version,
            "torch": torch.__version__.split("+")[0],
        },
        "diffusers": {name: by_diffusers(*run) for name, run in DIFFUSERS.items()},
        "k-diffusion": {name: by_k_diffusion(module, *run) for name, run in K_DIFFUSION.items()},
    }
    TARGET.write_text(json.dumps(facts, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{TARGET}: {TARGET.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()

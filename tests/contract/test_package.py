"""What holds for every module and every public name of the package."""

# pyright: reportOperatorIssue=false

import ast
import importlib
import inspect
import json
import pkgutil
import re
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from torch import nn

import lecturecode
from lecturecode import diffusion, exercises, plot, rng
from lecturecode.boltzmann import (
    GaussianRestrictedBoltzmannMachine,
    Persistent,
    RestrictedBoltzmannMachine,
    contrastive_divergence,
    contrastive_loss,
    ising,
    lattice_log_partition,
    states,
    torus_log_partition,
)
from lecturecode.data import bars_and_stripes, digits, moons
from lecturecode.diffusion import (
    Denoiser,
    DiscreteDenoiser,
    DiscreteProcess,
    EnumeratedDiffusion,
    GaussianData,
    VariancePreserving,
    all_states,
    bound_terms,
    continuous_elbo,
    elbo,
    model_distribution,
    sample_sites,
    tabulated,
)
from lecturecode.markov import (
    MarkovChain,
    ais,
    block_gibbs,
    checkerboard,
    effective_sample_size,
    evolve,
    flip,
    geometric,
    gibbs,
    hmc,
    langevin,
    mala,
    metropolis,
    multispin,
    pack,
    parallel_tempering,
    r_hat,
    run,
    standard_error,
    swendsen_wang,
    transition_matrix,
    unpack,
)
from lecturecode.nn import (
    ConditionalMLP,
    LevelEmbedding,
    UNet,
    conv_decoder,
    conv_encoder,
    ladder,
    linear,
    mlp,
    sinusoids,
)
from lecturecode.training import Batches, Best, Checkpoint, Ema, adam, fit, mean_score
from lecturecode.vae import (
    VAE,
    Bernoulli,
    ConditionalVAE,
    ContinuousBernoulli,
    Decoder,
    DiscretisedGaussian,
    DiscretisedLogistic,
    Encoder,
    Gaussian,
    GaussianChain,
    HierarchicalVAE,
    LatentTable,
    LinearGaussianVAE,
    SampleMoments,
    StandardNormal,
    iwae,
    iwae_loss,
)

MODULES = ["lecturecode", *(m.name for m in pkgutil.walk_packages(lecturecode.__path__, "lecturecode."))]
SOURCES = {name: Path(importlib.import_module(name).__file__) for name in MODULES}
PUBLIC = [(name, public) for name in MODULES for public in sys.modules[name].__all__]


@pytest.mark.parametrize("name", MODULES)
def test_a_module_says_what_it_offers(name):
    module = sys.modules[name]
    assert module.__doc__
    assert len(set(module.__all__)) == len(module.__all__) > 0
    assert all(hasattr(module, public) for public in module.__all__)
    if SOURCES[name].name != "__init__.py":
        assert len(module.__all__) <= 6


@pytest.mark.parametrize("name", MODULES)
def test_a_module_is_short(name):
    """About 150 lines; blank ones are not counted, docstrings are."""
    lines = SOURCES[name].read_text(encoding="utf-8").splitlines()
    assert sum(bool(line.strip()) for line in lines) <= 170


@pytest.mark.parametrize("name", [n for n in MODULES if SOURCES[n].name == "__init__.py"])
def test_a_package_only_re_exports(name):
    tree = ast.parse(SOURCES[name].read_text(encoding="utf-8"))
    assert {type(node) for node in tree.body} <= {ast.Expr, ast.ImportFrom, ast.Assign}


@pytest.mark.parametrize(("module", "public"), PUBLIC, ids=lambda part: part)
def test_a_public_name_is_documented(module, public):
    thing = getattr(sys.modules[module], public)
    if isinstance(thing, str):
        return
    assert thing.__doc__, "no docstring"
    if inspect.isclass(thing):
        methods = [m for name, m in vars(thing).items() if inspect.isfunction(m) and not name.startswith("_")]
        documented = {"forward", "extra_repr"}
        assert all(m.__doc__ for m in methods if m.__name__ not in documented)
    if inspect.isfunction(thing):
        assert "return" in thing.__annotations__, "no return annotation"
        parameters = inspect.signature(thing).parameters
        assert set(thing.__annotations__) >= {p for p in parameters if p not in {"self"}}, "an argument without type"


def test_the_appendix_names_what_is_there():
    """Sphinx would say so too, minutes later."""
    page = (Path(__file__).parents[2] / "book" / "appendix" / "api.md").read_text(encoding="utf-8")
    entries = re.findall(r"automodule:: (\S+)\n\s+:members: (.*)", page)
    assert len(entries) > 20
    assert ":special-members:" not in page  # of a module it finds none, and warns
    for module, members in entries:
        assert set(members.split(", ")) <= set(importlib.import_module(module).__all__), module


@pytest.mark.parametrize(("module", "public"), PUBLIC, ids=lambda part: part)
def test_whoever_raises_says_so(module, public):
    """A public function whose own body raises ValueError names it under Raises."""
    thing = getattr(sys.modules[module], public)
    if not inspect.isfunction(thing) or "raise ValueError" not in inspect.getsource(thing):
        return
    if module == "lecturecode.checks":
        return  # the whole module raises it, as its first lines say
    assert "Raises: ValueError" in thing.__doc__ or "Raises ValueError" in thing.__doc__


def test_no_module_asserts_or_prints_at_the_door():
    """Errors are ValueErrors: an assert vanishes under python -O. Only the exercises print."""
    for name, path in SOURCES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not isinstance(node, ast.Assert), f"{name}:{node.lineno}"
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print":
                assert name == "lecturecode.exercises", f"{name}:{node.lineno}"


def test_importing_changes_no_global_state():
    code = f"""
import json, logging, random, warnings
import numpy as np, torch

def state():
    return repr([
        torch.get_default_dtype(), torch.get_num_threads(), torch.get_float32_matmul_precision(),
        torch.get_rng_state().tolist(), random.getstate(), np.random.get_state(), torch.is_grad_enabled(),
        torch.distributions.Distribution._validate_args, logging.getLogger().level, logging.getLogger().handlers,
        torch.are_deterministic_algorithms_enabled(), np.geterr(),
    ])

filters = list(warnings.filters)
before = state()
import lecturecode
core = {{m for m in {json.dumps(MODULES)} if m != "lecturecode.plot"}}
for module in sorted(core):
    __import__(module)
assert state() == before
assert [f for f in warnings.filters if f not in filters] == []
import sys
assert "matplotlib" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


# --- randomness ------------------------------------------------------------------------------------------------------


def _table() -> LatentTable:
    return LatentTable(torch.tensor([0.5, 0.5]), torch.tensor([[0.25, 0.75], [0.5, 0.5]]))


def _vae(likelihood: nn.Module) -> VAE:
    start = rng.seeded(1)
    return VAE(Encoder(mlp([4, 8, 4], start)), Decoder(mlp([2, 4], start), likelihood), StandardNormal(2))


def _train() -> None:
    start = rng.seeded(2)
    vae = _vae(Bernoulli())
    data = Batches(bars_and_stripes(2), 3, start, steps=4)
    for step in fit(partial(vae.loss, rng=start), data, adam(vae)):
        _ = step.value


def _chain() -> HierarchicalVAE:
    return GaussianChain([torch.ones(2, 1), torch.ones(1, 1)], [0.5, 0.5]).model()


def _elbo(model: HierarchicalVAE, start: torch.Generator) -> torch.Tensor:
    return model.elbo(torch.ones(3, 2), 2, start).value


def _sample(model: HierarchicalVAE, start: torch.Generator) -> torch.Tensor:
    return model.sample(2, start)


def _anneal() -> torch.Tensor:
    def conditional(x: torch.Tensor) -> torch.Tensor:
        return torch.full_like(x, 0.5)

    energy = geometric(lambda x: x.sum(-1), lambda x: -x.sum(-1))
    x = gibbs(conditional, (0, 1))(torch.zeros(4, 3), rng.seeded(1))
    return ais(
        energy, lambda beta: metropolis(lambda x: energy(x, beta), flip((0, 1))), x, [0, 0.5, 1], rng.seeded(2)
    ).log_ratio


def _markov_chain() -> None:
    chain = MarkovChain.from_rates(torch.tensor([[-1.0, 2.0], [1.0, -2.0]]), 0.5)
    _ = chain.sample(torch.zeros(3, dtype=torch.long), 4, rng.seeded(1)), chain.reverse(), chain.spectral_gap
    _ = evolve([chain.T], P), chain.evolve(P, 9), chain.mixing_time(), chain.mixing_time_bounds(), chain.period
    _ = chain.hitting_times([0]), chain.hitting_probabilities([1]), chain.absorption_probabilities()


def _kernels() -> None:
    def energy(x: torch.Tensor) -> torch.Tensor:
        return -x.sum(-1)

    x = torch.ones(3, 2)
    for kernel in (
        langevin(torch.neg, 0.1),
        mala(energy, 0.1),
        hmc(energy, 0.1, 2, jitter=0.1),
        gibbs(torch.sigmoid, (0, 1), scan="random"),
        block_gibbs(energy, (0, 1), [[0, 1]]),
        parallel_tempering(lambda x, beta: beta * energy(x), lambda beta: flip((0, 1)), [0.0, 0.5, 1.0]),
    ):
        draws = torch.stack(list(run(kernel, x.expand(3, 3, 2), 4, rng.seeded(1), burn_in=1)))
        _ = effective_sample_size(draws), r_hat(draws), standard_error(draws)
    _ = transition_matrix(
        metropolis(energy, flip((0, 1))), torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    )


def _lattices() -> None:
    x = torch.ones(64, 4)
    kernels = checkerboard(2, 2), checkerboard(2, 2, 1.0, torch.zeros(2, 2)), swendsen_wang(2, 2, 0.5)
    for kernel in kernels:
        _ = kernel(x, rng.seeded(1)), kernel.matrix(states(4))
    _ = unpack(multispin(2, 2, 0.5, 0.1)(pack(x), rng.seeded(1)))


def _restricted() -> None:
    start = rng.seeded(1)
    model = RestrictedBoltzmannMachine(4, 2, start)
    x = model.sample(3, start)
    loss = contrastive_loss(model, x, contrastive_divergence(model, x, 2, start))
    (loss + contrastive_loss(model, x, Persistent(x).advance(model, 1, start)) - model.log_prob(x).mean()).backward()
    _ = model.moments(), model.joint().log_partition()


def _real_valued() -> None:
    start = rng.seeded(1)
    model = GaussianRestrictedBoltzmannMachine(4, 2, start)
    _ = model.log_prob(model.gibbs(model.sample(3, start), start)), model.hidden_machine()


def _conditional() -> ConditionalVAE:
    start = rng.seeded(1)
    return ConditionalVAE(
        Encoder(mlp([6, 4], start)), Decoder(mlp([4, 4], start), Bernoulli()), StandardNormal(2), classes=2
    )


def _discrete() -> None:
    process, start = DiscreteProcess.absorbing([0.25, 0.5], 2), rng.seeded(1)
    exact = EnumeratedDiffusion(process, torch.full((9,), 1 / 9, dtype=torch.float64))
    model = DiscreteDenoiser(_Levelled(mlp([6, 6], start)), process)
    model.loss(torch.tensor([[0, 1], [1, 0]]), start, bound=0.5).backward()
    table = tabulated(model.reverse, all_states(2, 3))
    _ = (
        bound_terms(exact, table),
        model_distribution(process, 2, table),
        sample_sites(process, model.reverse, (3, 2), start),
    )


class _Levelled(nn.Module):
    """A network that is told a noise level and does not use it."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        return self.net(x.flatten(1))


def _linear() -> None:
    x = torch.randn(9, 4, generator=rng.seeded(1))
    model = LinearGaussianVAE.fitted(x, 2)
    _ = model.gap(x), model.log_prob(x), LinearGaussianVAE(4, 2, rng.seeded(2)).loss(SampleMoments.of(x))


class _WithLevel(nn.Module):
    """A network of x with the noise level as one more input."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor, level: torch.Tensor, *labels: torch.Tensor) -> torch.Tensor:
        return self.net(torch.cat([x, level[:, None]], 1))


def _squared(x0_hat: torch.Tensor, x0: torch.Tensor) -> torch.Tensor:
    return -(x0_hat - x0).square().sum(1)


def _diffusion_bound() -> None:
    schedule, times, start = VariancePreserving(), torch.tensor([0.0, 0.2, 0.6, 1.0]), rng.seeded(1)
    denoiser = Denoiser(_WithLevel(mlp([3, 4, 2], start)), schedule)
    x0 = torch.rand(3, 2, generator=start)
    for variance in ("posterior", "step"):
        _ = elbo(denoiser, x0, times, _squared, start, variance, draws=2).value
    _ = continuous_elbo(denoiser, x0, 0.1, _squared, start).value
    _ = GaussianData(torch.zeros(2), torch.eye(2)).gap(schedule, times).value


SCHEDULE = VariancePreserving()


def _schedules() -> None:
    start = rng.seeded(1)
    for schedule in (
        diffusion.FromBetas([0.1, 0.5]),
        diffusion.Linear(20).zero_terminal(),
        diffusion.Cosine(20),
        diffusion.VarianceExploding(),
        diffusion.EDM(10.0),
        SCHEDULE,
    ):
        _ = diffusion.uniform_grid(schedule, 4), diffusion.log_snr_grid(schedule, 4, low=0.0)
        _ = diffusion.karras_grid(schedule, 4, low=0.01, high=1.0), diffusion.terminal_snr(schedule)
        _ = diffusion.levels(schedule, schedule.end / 2, P), schedule.rates(schedule.end / 2)
        for times in (diffusion.UniformTimes(), diffusion.LogNormalTimes()):
            _ = times(schedule, 4, start, P)


def _noise() -> None:
    start = rng.seeded(1)
    x0 = rng.normal((3, 2), start, P)
    xt = diffusion.forward(SCHEDULE, x0, rng.normal((3, 2), start, P), 0.5)
    for law in (
        diffusion.marginal(SCHEDULE, x0, 0.5),
        diffusion.transition(SCHEDULE, x0, 0.2, 0.5),
        diffusion.posterior(SCHEDULE, x0, xt, 0.2, 0.5),
        diffusion.noise_end(SCHEDULE, (3, 2), x0),
    ):
        _ = law.sample(start), law.log_prob(x0), law.kl(diffusion.Gaussian(x0, torch.ones(())))


def _network_denoisers() -> None:
    start = rng.seeded(1)
    x0 = rng.normal((3, 2), start, P)
    velocity, own = diffusion.VELOCITY, diffusion.preconditioned(0.5)
    for asked in (diffusion.CLEAN, diffusion.NOISE, diffusion.SCORE, velocity, own):
        for weighting in (None, diffusion.simple, diffusion.min_snr(), diffusion.of_prediction(velocity)):
            denoiser = Denoiser(_WithLevel(mlp([3, 4, 2], start)), SCHEDULE, asked, weighting)
            denoiser.loss(x0, start).backward()
    classes = Denoiser(_WithLevel(mlp([3, 4, 2], start)), SCHEDULE, classes=2)
    guided = diffusion.Guided(diffusion.Given(classes, 1), classes, 2.0)
    _ = classes.loss((x0, torch.tensor([0, 1, 1])), start), guided(x0, 0.5)


def _samplers() -> None:
    start = rng.seeded(1)
    points = rng.normal((3, 2), start, P)
    x, grid = rng.normal((4, 2), start, P), diffusion.uniform_grid(SCHEDULE, 3)
    bells = diffusion.GaussianMixtureDenoiser(torch.full((3,), 1 / 3), points, 0.1, SCHEDULE)
    one = diffusion.GaussianDenoiser(points[0], torch.eye(2), SCHEDULE)
    for exact in (bells, bells.given(0), one):
        _ = exact.sample(5, start), exact.log_prob(x, 0.5), exact.score(x, 0.5), exact.posterior_covariance(x, 0.5)
    _ = bells.responsibilities(x, 0.5), one.flow(x, 0.5, 1.0)
    for exact in (bells, one, diffusion.EmpiricalDenoiser(points, SCHEDULE)):
        for rule in (
            diffusion.ancestral,
            diffusion.ddim,
            diffusion.euler,
            diffusion.euler_maruyama,
            diffusion.exponential,
            diffusion.dpm_solver,
            partial(diffusion.heun, churn=diffusion.Churn(1.0, high=2.0)),
            diffusion.ddim(SCHEDULE, [1.0, 0.5]),
        ):
            times = None if isinstance(rule, diffusion.Table) else grid
            _ = diffusion.sample(diffusion.Counted(exact), rule, x, times, start)
            _ = list(diffusion.walk(exact, rule, x, times, start))


def _few_calls() -> None:
    start = rng.seeded(1)
    bells = diffusion.GaussianMixtureDenoiser(torch.tensor([0.5, 0.5]), torch.eye(2), 0.1, SCHEDULE)
    x = rng.normal((16, 2), start, P)
    table = diffusion.gaussian_exponential(SCHEDULE, [1.0, 0.5, 0.0], torch.zeros(2), torch.eye(2))
    assert isinstance(table, diffusion.DirectionTable)
    _ = diffusion.sample(bells, diffusion.noise_exponential, x, [1.0, 0.7, 0.4, 0.0])
    _ = diffusion.sample(bells, table, x), list(diffusion.walk(bells, table, x))
    pilot = diffusion.Pilot.run(bells, x, candidates=6)
    for gaussian in (True, False):
        _ = diffusion.fitted(pilot, diffusion.dynamic_grid(pilot, 3, gaussian=gaussian), 2, gaussian, rounds=1)
    _ = diffusion.few_calls(bells, x, 2).table


def _told_the_level() -> None:
    start, level, labels = rng.seeded(1), torch.zeros(2), torch.tensor([0, 2])
    _ = sinusoids(level, ladder(3)), LevelEmbedding(3, start, classes=2)(level, labels)
    for net in (ConditionalMLP(16, 3, start, classes=2), UNet(4, [2, 3], start, classes=2)):
        net(torch.ones(2, 16), level, labels).sum().backward()


def _flows() -> None:
    start, schedule = rng.seeded(1), diffusion.Straight()
    bells = diffusion.GaussianMixtureDenoiser(torch.tensor([0.5, 0.5]), torch.eye(2), 0.1, schedule)
    x0, eps = bells.sample(3, start).float(), rng.normal((3, 2), start, P)
    for asked in (diffusion.FLOW, diffusion.flow_velocity(schedule)):
        Denoiser(_WithLevel(mlp([3, 4, 2], start)), schedule, asked).loss(x0, start).backward()
    _ = diffusion.velocity(bells, x0, 0.5), diffusion.score(bells, x0, 0.5), diffusion.slopes(schedule, 0.5)
    _ = diffusion.flow_matching_loss(bells, *diffusion.rectified_pairs(bells, eps, 1e-3), 0.5)
    _ = diffusion.straightness(bells, eps, 1e-3), diffusion.encode(bells, x0, 1e-3)
    _ = diffusion.log_likelihood(bells, x0, 1e-3), diffusion.log_likelihood(bells, x0, 1e-3, 2, start)


def _levels() -> None:
    x, start = digits("test").grey[:2], rng.seeded(1)
    _ = diffusion.quantise(diffusion.dequantise(x, start)), diffusion.quantised_log_prob(lambda y: y.sum(1), x, start)


def _save() -> None:
    start = rng.seeded(2)
    vae = _vae(Bernoulli())
    ema, best = Ema(vae), Best(vae)
    ema.update()
    best.update(mean_score(lambda x: vae.elbo(x, 1, start).value, bars_and_stripes(2)))
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Checkpoint(model=vae, optimizer=adam(vae), ema=ema, best=best, rng=start)
        checkpoint.save(Path(folder) / "a", 1)
        checkpoint.load(Path(folder) / "a")


P, Q = torch.tensor([0.25, 0.75]), torch.tensor([0.5, 0.5])
SQUARE = torch.eye(3)
NORMAL = torch.distributions.Normal(torch.zeros(2), torch.ones(2))
WORK = {
    "entropy": lambda: lecturecode.entropy(P),
    "kl": lambda: (lecturecode.kl(P, Q), lecturecode.kl(NORMAL, NORMAL)),
    "js": lambda: lecturecode.js(P, Q),
    "tv": lambda: lecturecode.tv(P, Q),
    "frechet": lambda: lecturecode.frechet(states(2), states(2)),
    "best_device": lecturecode.best_device,
    "best_dtype": lambda: lecturecode.best_dtype("cpu"),
    "seeded": lambda: rng.seeded(3),
    "normal": lambda: rng.normal((3,), rng.seeded(3), P),
    "uniform": lambda: rng.uniform((3,), rng.seeded(3), P),
    "permutation": lambda: rng.permutation(5, rng.seeded(3)),
    "draw": lambda: [rng.draw(d, 3, rng.seeded(3)) for d in (NORMAL, torch.distributions.Exponential(P))],
    "linear": lambda: linear(3, 2, rng.seeded(3)),
    "mlp": lambda: mlp([3, 2, 1], rng.seeded(3)),
    "digits": lambda: (digits("test").grey, digits("test").only(digits("test").labels == 3)),
    "bars_and_stripes": lambda: bars_and_stripes(3),
    "moons": lambda: moons(3, rng.seeded(1)),
    "Batches, adam, fit": _train,
    "Checkpoint, Ema, Best, mean_score": _save,
    "vae": lambda: [_vae(likelihood).sample(3, rng.seeded(1)) for likelihood in (Bernoulli(), Gaussian(0.5))],
    "reconstruct": lambda: _vae(Gaussian(0.5)).reconstruct(torch.rand(2, 4, generator=rng.seeded(1))),
    "elbo": lambda: _vae(Bernoulli()).elbo(bars_and_stripes(2), 3, rng.seeded(1)),
    "iwae": lambda: iwae(_vae(Bernoulli()), bars_and_stripes(2), 3, rng.seeded(1)),
    "LatentTable": lambda: (_table().em(P), _table().elbo(_table().posterior()), _table().log_prob()),
    "iwae_loss": lambda: iwae_loss(_vae(Bernoulli()), bars_and_stripes(2), 3, rng.seeded(1)).backward(),
    "grey": lambda: [
        _vae(p).sample(3, rng.seeded(1))
        for p in (ContinuousBernoulli(), DiscretisedGaussian(0.1), DiscretisedLogistic(0.1))
    ],
    "hierarchy": lambda: [f(_chain(), rng.seeded(1)) for f in (_elbo, _sample)],
    "conditional": lambda: _conditional().sample(torch.tensor([0, 1]), rng.seeded(1)),
    "schedules, grids, times": _schedules,
    "forward, marginal, transition, posterior, noise_end": _noise,
    "Denoiser, predictions, weightings, Guided": _network_denoisers,
    "exact denoisers, samplers": _samplers,
    "elbo, continuous_elbo of a diffusion": _diffusion_bound,
    "log_likelihood, encode, velocity, flow_matching_loss": _flows,
    "dequantise, quantise": _levels,
    "conv": lambda: (conv_encoder(8, [2], 4, rng.seeded(1)), conv_decoder(2, [2], 8, rng.seeded(1))),
    "level, ConditionalMLP, UNet": _told_the_level,
    "LinearGaussianVAE": _linear,
    "restricted": _restricted,
    "restricted, Gaussian": _real_valued,
    "gibbs, metropolis, ais": _anneal,
    "MarkovChain": _markov_chain,
    "checkerboard, swendsen_wang, multispin": _lattices,
    "kernels, run, diagnostics": _kernels,
    "ising": lambda: ising(2, 3, periodic=True).log_partition(),
    "lattice": lambda: (lattice_log_partition(SQUARE[1:].mT, SQUARE[1:], SQUARE), torus_log_partition(*3 * [SQUARE])),
    "few calls": _few_calls,
    "discrete diffusion": _discrete,
    "exercises": exercises.names,
    "plot": lambda: [plot.lines(P, {"a": Q}), plot.bars({"p": P}, "ab"), plot.images(torch.zeros(2, 4), 2)],
}


@pytest.mark.parametrize("work", WORK)
def test_the_global_generators_are_left_alone(work):
    plt.switch_backend("agg")

    def state():
        return torch.get_rng_state().tolist(), repr(np.random.get_state())  # noqa: NPY002  the one to leave alone

    before = state()
    with mpl.rc_context():
        WORK[work]()
    plt.close("all")
    assert state() == before


def test_no_module_uses_pythons_own_random():
    """By its imports: beartype, which checks types while these tests run, moves that generator itself."""
    for name, path in SOURCES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert "random" not in [alias.name for alias in node.names], name
            assert not (isinstance(node, ast.ImportFrom) and node.module == "random"), name


def test_nothing_is_drawn_without_a_generator():
    """Each call of a torch function that draws names its generator; nothing draws in place or by a distribution."""
    drawing = {"rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "poisson"}
    for name, path in SOURCES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            call, where = node.func.attr, f"{name}:{node.lineno}"
            if getattr(node.func.value, "id", "") == "torch" and call in drawing:
                assert any(k.arg == "generator" for k in node.keywords), where
            assert call not in {"manual_seed"} or name == "lecturecode.rng", where
            assert call not in {"rsample", "normal_", "uniform_", "bernoulli_", "dropout", "rand_like", "randn_like"}, (
                where
            )


def test_nothing_moves_a_tensor_behind_the_callers_back():
    """.cpu() and .cuda() stand nowhere but in plots and exercises, which end there."""
    for name, path in SOURCES.items():
        if name in {"lecturecode.plot", "lecturecode.exercises"}:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                assert node.func.attr not in {"cpu", "cuda", "mps"}, f"{name}:{node.lineno}"

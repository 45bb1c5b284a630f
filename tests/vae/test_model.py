"""The VAE against cases that can be solved: a linear Gaussian model, whose log p(x) and posterior are exact."""

# pyright: reportCallIssue=false

import math

import pytest
import torch
from torch import distributions, nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, MultivariateNormal, Normal

from lecturecode import kl, seeded
from lecturecode.nn import mlp
from lecturecode.vae import VAE, Bernoulli, Decoder, Encoder, Gaussian, StandardNormal, iwae

F64 = torch.float64
N, M, SIGMA = 5, 2, 0.7
RNG = torch.Generator().manual_seed(12)
W, C = torch.randn(N, M, generator=RNG, dtype=F64), torch.randn(N, generator=RNG, dtype=F64)
X = torch.randn(6, N, generator=RNG, dtype=F64)


class Affine(nn.Module):
    """h ↦ Wh + c."""

    def __init__(self, weight, offset):
        super().__init__()
        self.weight, self.offset = nn.Parameter(weight.clone()), nn.Parameter(offset.clone())

    def forward(self, h):
        return h @ self.weight.mT + self.offset


class Posterior(nn.Module):
    """The exact p(h|x) of the linear model, with a full covariance: (1 + WᵀW/σ²)⁻¹."""

    def __init__(self, shift: float = 0.0, widen: float = 1.0):
        super().__init__()
        self.precision = torch.eye(M, dtype=F64) + W.mT @ W / SIGMA**2
        self.shift, self.widen = shift, widen

    def forward(self, x):
        mean = torch.linalg.solve(self.precision, W.mT @ (x - C).mT / SIGMA**2).mT + self.shift
        return MultivariateNormal(mean, torch.linalg.inv(self.precision) * self.widen, validate_args=False)


class Mixture(nn.Module):
    """A prior without closed-form KL: two Gaussians in m dimensions."""

    def forward(self):
        centres = torch.tensor([[-1.0, 0.5], [2.0, -0.5]], dtype=F64)
        parts = Independent(Normal(centres, torch.full_like(centres, 0.8)), 1)
        return MixtureSameFamily(Categorical(torch.tensor([0.3, 0.7], dtype=F64)), parts)


def linear_model(encoder=None, prior=None) -> VAE:
    decoder = Decoder(Affine(W, C), Gaussian(SIGMA, dtype=F64))
    return VAE(encoder or Posterior(), decoder, prior or StandardNormal(M, dtype=F64))


def exact_log_prob(x):
    """log N(x; c, WWᵀ + σ²1)."""
    return MultivariateNormal(C, W @ W.mT + SIGMA**2 * torch.eye(N, dtype=F64)).log_prob(x)


def small_vae(dtype=torch.float32, likelihood=None, seed: int = 1) -> VAE:
    rng = seeded(seed)
    decoder = Decoder(mlp([2, 8, 6], rng, dtype=dtype), likelihood or Bernoulli())
    return VAE(Encoder(mlp([6, 8, 4], rng, dtype=dtype)), decoder, StandardNormal(2, dtype=dtype))


def bits(count: int, dtype=torch.float32) -> torch.Tensor:
    return (torch.rand(count, 6, generator=seeded(5)) < 0.5).to(dtype)


# --- the bounds on the solvable model --------------------------------------------------------------------------------


@pytest.mark.parametrize("draws", [1, 2, 17])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_with_the_exact_posterior_iwae_is_log_p_for_any_draws(draws, seed):
    found = iwae(linear_model(), X, draws, seeded(seed))
    torch.testing.assert_close(found, exact_log_prob(X), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_with_the_exact_posterior_the_monte_carlo_bound_is_log_p_draw_by_draw(seed):
    """log p(x|h) + log p(h) − log p(h|x) is log p(x) whatever h is; with a prior that hides its being Gaussian."""

    class Hidden(nn.Module):
        def forward(self):
            normal = Independent(Normal(torch.zeros(1, M, dtype=F64), torch.ones(1, M, dtype=F64)), 1)
            return MixtureSameFamily(Categorical(torch.ones(1, dtype=F64)), normal)

    found = linear_model(prior=Hidden()).elbo(X, 1, seeded(seed)).value
    torch.testing.assert_close(found, exact_log_prob(X), rtol=1e-12, atol=1e-12)


def exact_reconstruction(q: MultivariateNormal, x):
    """E_q[log N(x; Wh + c, σ²)] in closed form: the quadratic at the mean and the trace of WΣWᵀ."""
    residual = (x - q.loc @ W.mT - C).square().sum(-1)
    spread = torch.einsum("ni,bij,nj->b", W, q.covariance_matrix, W)
    return -(residual + spread) / (2 * SIGMA**2) - N * (math.log(SIGMA) + math.log(2 * math.pi) / 2)


@pytest.mark.parametrize(
    "encoder", [Posterior(), Posterior(shift=0.3), Posterior(widen=2.0)], ids=["exact", "shift", "wide"]
)
def test_the_bound_is_below_log_p_by_the_divergence_from_the_posterior(encoder):
    """The expectation of the ELBO in closed form; the sampled one lies within 5 of its own standard errors."""
    model, q = linear_model(encoder), encoder(X)
    expectation = exact_reconstruction(q, X) - kl(q, StandardNormal(M, dtype=F64)())
    gap = exact_log_prob(X) - expectation
    torch.testing.assert_close(gap, kl(q, Posterior()(X)), rtol=1e-10, atol=1e-12)
    draws = 20_000
    singles = torch.stack([model.elbo(X, 1, rng).reconstruction for rng in [seeded(9)] for _ in range(200)])
    sampled = model.elbo(X, draws, seeded(4))
    spread = singles.std(0) / math.sqrt(draws) * 1.3  # σ from 200 draws is good to 5 % (30 % is 6 sigma)
    assert ((sampled.reconstruction - exact_reconstruction(q, X)).abs() < 5 * spread).all()
    torch.testing.assert_close(sampled.kl, kl(q, StandardNormal(M, dtype=F64)()), rtol=1e-12, atol=0)


def test_the_bound_is_its_formula_draw_by_draw(dtype):
    """The noise drawn by hand, the networks called by hand, the sums in the open."""
    vae, x, draws = small_vae(dtype), bits(4, dtype), 3
    noise = torch.randn(draws, 4, 2, generator=torch.Generator().manual_seed(7), dtype=dtype)
    mean, log_variance = vae.encoder.net(x)[:, :2], vae.encoder.net(x)[:, 2:]
    h = mean + (log_variance / 2).exp() * noise
    y = torch.stack([vae.decoder.net(part) for part in h])
    reconstruction = (x * y - torch.log1p(y.exp())).sum(-1).mean(0)
    divergence = (log_variance.exp() + mean**2 - 1 - log_variance).sum(-1) / 2
    found = vae.elbo(x, draws, seeded(7))
    tol = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-11, "atol": 1e-13}
    torch.testing.assert_close(found.reconstruction, reconstruction, **tol)
    torch.testing.assert_close(found.kl, divergence, **tol)
    torch.testing.assert_close(found.value, reconstruction - divergence, **tol)


@pytest.mark.parametrize("kl_weight", [0.0, 0.5, 1.0, 4.0])
def test_the_loss_is_a_mean_over_the_batch_of_sums(kl_weight):
    vae, x = small_vae(F64), bits(5, F64)
    bound = vae.elbo(x, 1, seeded(3))
    wanted = sum(kl_weight * k - r for r, k in zip(bound.reconstruction.tolist(), bound.kl.tolist(), strict=True)) / 5
    assert vae.loss(x, seeded(3), kl_weight).item() == pytest.approx(wanted, rel=1e-14)
    if kl_weight == 1:
        assert vae.loss(x, seeded(3)).item() == pytest.approx(-bound.value.mean().item(), rel=1e-14)


def test_the_kl_to_the_prior_is_the_integral():
    """One dimension, by the trapezoid rule, whose error is below rounding for a Gaussian integrand on this grid."""
    h = torch.linspace(-30, 30, 6001, dtype=F64)
    for mean, scale in ((0.0, 1.0), (1.5, 0.3), (-2.0, 2.0)):
        q, p = Normal(torch.tensor(mean, dtype=F64), scale), Normal(torch.tensor(0.0, dtype=F64), 1.0)
        integral = torch.trapezoid(q.log_prob(h).exp() * (q.log_prob(h) - p.log_prob(h)), h)

        class Fixed(nn.Module):
            def forward(self, x, q=q):
                return Independent(Normal(q.loc.expand(len(x), 1), q.scale.expand(len(x), 1)), 1)

        decoder = Decoder(Affine(torch.ones(1, 1, dtype=F64), torch.zeros(1, dtype=F64)), Gaussian(1.0, dtype=F64))
        vae = VAE(Fixed(), decoder, StandardNormal(1, dtype=F64))
        found = vae.elbo(torch.zeros(2, 1, dtype=F64), 1, seeded(0)).kl
        torch.testing.assert_close(found, integral.expand(2), rtol=1e-12, atol=1e-13)


def test_iwae_is_its_formula_and_at_one_draw_the_monte_carlo_elbo():
    model, draws = linear_model(Posterior(shift=0.5, widen=1.5)), 4
    q = model.encoder(X)
    noise = torch.randn(draws, 6, M, generator=torch.Generator().manual_seed(3), dtype=F64)
    h = q.loc + (torch.linalg.cholesky(q.covariance_matrix) @ noise[..., None])[..., 0]

    def log_normal(x, mean, sigma):
        return (-((x - mean) ** 2) / (2 * sigma**2) - math.log(sigma) - math.log(2 * math.pi) / 2).sum(-1)

    log_w = log_normal(X, h @ W.mT + C, SIGMA) + log_normal(h, 0.0, 1.0) - q.log_prob(h)
    torch.testing.assert_close(iwae(model, X, draws, seeded(3)), log_w.exp().mean(0).log(), rtol=1e-11, atol=1e-11)


def test_iwae_rises_with_the_draws():
    """Means over 4,000 repetitions: each step up is larger than −5 standard errors, the first one larger than +5."""
    model, x = linear_model(Posterior(shift=0.6, widen=1.5)), X[:1].expand(4000, N)
    values = [iwae(model, x, draws, seeded(8)) for draws in (1, 5, 50)]
    for k, (low, high) in enumerate(zip(values, [*values[1:], exact_log_prob(X[:1])], strict=True)):
        error = math.sqrt((low.var() / 4000).item() + (high.var().item() / 4000 if len(high) > 1 else 0))
        assert (high.mean() - low.mean()).item() > (5 if k == 0 else -5) * error


# --- pluggable parts -------------------------------------------------------------------------------------------------


def test_a_prior_without_closed_form_is_sampled():
    model, draws = linear_model(Posterior(widen=1.3), Mixture()), 3
    q, prior = model.encoder(X), Mixture()()
    h = model.draw(q, draws, seeded(2))
    bound = model.elbo(X, draws, seeded(2))
    torch.testing.assert_close(bound.kl, (q.log_prob(h) - prior.log_prob(h)).mean(0), rtol=1e-13, atol=0)


def test_the_sampled_kl_has_the_right_mean():
    """KL from a Gaussian to the mixture on a grid of the plane; 100,000 draws within 5 standard errors."""
    axis = torch.linspace(-9, 9, 601, dtype=F64)
    grid = torch.cartesian_prod(axis, axis)
    q = Posterior(widen=1.3)(X[:1])
    prior = Mixture()()
    gap = q.log_prob(grid) - prior.log_prob(grid)
    integral = (q.log_prob(grid).exp() * gap).sum() * (axis[1] - axis[0]) ** 2
    second = (q.log_prob(grid).exp() * gap**2).sum() * (axis[1] - axis[0]) ** 2
    draws = 100_000
    found = linear_model(Posterior(widen=1.3), Mixture()).elbo(X[:1], draws, seeded(6)).kl
    assert abs(found.item() - integral.item()) < 5 * math.sqrt((second - integral**2).item() / draws)


def test_gradients_flow_through_a_full_covariance_encoder():
    class Full(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = mlp([N, 8, M + 3], seeded(1), dtype=F64)

        def forward(self, x):
            mean, rest = self.net(x).split([M, 3], -1)
            factor = torch.stack([rest[:, 0].exp(), torch.zeros(len(x), dtype=F64), rest[:, 1], rest[:, 2].exp()], -1)
            return MultivariateNormal(mean, scale_tril=factor.reshape(-1, 2, 2), validate_args=False)

    model = linear_model(Full())
    bound = model.elbo(X, 2, seeded(1))
    assert bound.value.shape == (6,)
    model.loss(X, seeded(1)).backward()
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
        assert parameter.grad.abs().sum() > 0
    torch.testing.assert_close(
        bound.kl,
        distributions.kl_divergence(
            model.encoder(X), MultivariateNormal(torch.zeros(M, dtype=F64), torch.eye(M, dtype=F64))
        ),
        rtol=1e-12,
        atol=1e-12,
    )


def test_the_gradient_of_the_loss_is_that_of_its_finite_difference():
    vae, x = small_vae(F64), bits(3, F64)
    parameters = list(vae.parameters())

    def loss(*values):
        replaced = dict(zip([name for name, _ in vae.named_parameters()], values, strict=True))
        return torch.func.functional_call(_Loss(vae, x), {f"vae.{name}": value for name, value in replaced.items()}, ())

    assert torch.autograd.gradcheck(loss, tuple(p.detach().clone().requires_grad_() for p in parameters))


class _Loss(nn.Module):
    def __init__(self, vae, x):
        super().__init__()
        self.vae, self.x = vae, x

    def forward(self):
        return self.vae.loss(self.x, seeded(4))


def test_images_with_several_axes():
    class Flat(nn.Module):
        def __init__(self, net, shape):
            super().__init__()
            self.net, self.shape = net, shape

        def forward(self, x):
            return self.net(x.flatten(1)).reshape(len(x), *self.shape)

    rng = seeded(2)
    encoder, decoder = Encoder(Flat(mlp([6, 4], rng), (4,))), Decoder(Flat(mlp([2, 6], rng), (2, 3)), Bernoulli())
    vae = VAE(encoder, decoder, StandardNormal(2))
    x = bits(5).reshape(5, 2, 3)
    assert vae.elbo(x, 4, seeded(1)).value.shape == (5,)
    assert iwae(vae, x, 4, seeded(1)).shape == (5,)
    assert vae.sample(3, seeded(1)).shape == (3, 2, 3)
    assert vae.reconstruct(x).shape == (5, 2, 3)


# --- samples, reconstructions, what follows the input ----------------------------------------------------------------


def test_samples_are_drawn_from_prior_and_decoder():
    vae = small_vae()
    rng = torch.Generator().manual_seed(6)
    h = torch.randn(50, 2, generator=rng)
    level = torch.rand(50, 6, generator=rng)
    found = vae.sample(50, seeded(6))
    assert torch.equal(found, (level < vae.decoder.net(h).sigmoid()).float())
    assert not found.requires_grad
    assert vae.sample(1, seeded(6)).shape == (1, 6)


def test_a_reconstruction_is_the_mean_at_the_mean():
    vae, x = small_vae(), bits(5)
    found = vae.reconstruct(x)
    torch.testing.assert_close(found, vae.decoder.net(vae.encoder.net(x)[:, :2]).sigmoid())
    assert not found.requires_grad
    grey = small_vae(likelihood=Gaussian(0.5))
    torch.testing.assert_close(grey.reconstruct(x), grey.decoder.net(grey.encoder.net(x)[:, :2]).detach())


def test_one_seed_gives_one_bound():
    vae, x = small_vae(), bits(5)
    assert torch.equal(vae.elbo(x, 3, seeded(1)).value, vae.elbo(x, 3, seeded(1)).value)
    assert not torch.equal(vae.elbo(x, 3, seeded(1)).value, vae.elbo(x, 3, seeded(2)).value)


@pytest.mark.parametrize("likelihood", [Bernoulli, lambda: Gaussian(0.3), lambda: Gaussian(0.3, learned=True)])
def test_device_and_dtype_follow_the_input(device, dtype, likelihood):
    vae = small_vae(dtype, likelihood()).to(device, dtype)
    x = bits(4, dtype).to(device)
    bound = vae.elbo(x, 2, seeded(1))
    for found in (
        bound.value,
        vae.loss(x, seeded(1)),
        iwae(vae, x, 2, seeded(1)),
        vae.sample(3, seeded(1)),
        vae.reconstruct(x),
    ):
        assert found.dtype == dtype
        assert found.device == x.device


def test_the_state_holds_the_networks_and_nothing_else():
    assert set(small_vae().state_dict()) == {
        f"{part}.net.{k}.{kind}" for part in ("encoder", "decoder") for k in (0, 2) for kind in ("weight", "bias")
    }


# --- the door --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "what"),
    [
        (torch.zeros(0, 6), r"x has shape \(0, 6\); pass at least one example, one row for each: \(batch, n\)"),
        (torch.zeros(2, 5), r"x has shape \(2, 5\) and the encoder takes 6 numbers an example; reshape x"),
        (torch.full((2, 6), 0.5), r"x\[0, 0\] is 0\.5, and a Bernoulli likelihood is for 0 and 1: binarise"),
        (torch.full((2, 6), math.nan), r"x\[0, 0\] is nan, and a Bernoulli"),
        (
            torch.zeros(2, 6, dtype=F64),
            r"x is torch\.float64 and the model torch\.float32; pass x\.to\(torch\.float32\)",
        ),
        (torch.empty(2, 6, device="meta"), r"x is on meta and model on cpu; move one of them"),
    ],
)
def test_data_that_are_refused_by_every_door(x, what):
    vae, rng = small_vae(), seeded(1)
    start = rng.get_state()
    calls = (
        lambda: vae.elbo(x, 1, rng),
        lambda: vae.loss(x, rng),
        lambda: iwae(vae, x, 1, rng),
        lambda: vae.reconstruct(x),
    )
    for call in calls:
        with pytest.raises(ValueError, match=what):
            call()
    assert torch.equal(rng.get_state(), start)  # nothing was drawn


def test_not_finite_data_into_a_gaussian_are_refused():
    x = bits(2)
    x[1, 3] = math.inf
    with pytest.raises(ValueError, match=r"x\[1, 3\] is inf: 1 of 12 values are not finite"):
        small_vae(likelihood=Gaussian(1.0)).elbo(x, 1, seeded(1))


@pytest.mark.parametrize("draws", [0, -3])
def test_no_draws_are_refused(draws):
    with pytest.raises(ValueError, match=f"draws is {draws}; ask for at least one"):
        small_vae().elbo(bits(2), draws, seeded(1))
    with pytest.raises(ValueError, match=f"draws is {draws}; ask for at least one"):
        iwae(small_vae(), bits(2), draws, seeded(1))
    with pytest.raises(ValueError, match=f"count is {draws}; ask for at least one"):
        small_vae().sample(draws, seeded(1))


def test_parts_that_do_not_fit_are_refused():
    rng = seeded(1)
    encoder, decoder = Encoder(mlp([6, 4], rng)), Decoder(mlp([2, 6], rng), Bernoulli())
    for call in (lambda v: v.elbo(bits(2), 1, rng), lambda v: iwae(v, bits(2), 1, rng)):
        with pytest.raises(ValueError, match=r"q\(h\|x\) is over h of shape \(2,\) and the prior over \(1,\)"):
            call(VAE(encoder, decoder, StandardNormal(1)))
        with pytest.raises(ValueError, match=r"example of x has shape \(6,\) and the decoder's distribution \(1,\)"):
            call(VAE(encoder, Decoder(mlp([2, 1], rng), Bernoulli()), StandardNormal(2)))
        with pytest.raises(ValueError, match=r"the encoder's network gives 3 numbers; it needs 2m"):
            call(VAE(Encoder(mlp([6, 3], rng)), decoder, StandardNormal(2)))


@pytest.mark.parametrize("m", [0, -1])
def test_a_prior_has_a_dimension(m):
    with pytest.raises(ValueError, match=f"m is {m}; a latent space has at least one dimension"):
        StandardNormal(m)


def test_the_prior_is_a_standard_normal(dtype):
    h = torch.randn(5, 3, generator=seeded(1), dtype=dtype)
    found = StandardNormal(3, dtype)().log_prob(h)
    torch.testing.assert_close(found, -(h.square().sum(-1) + 3 * math.log(2 * math.pi)) / 2)
    assert list(StandardNormal(3).state_dict()) == []

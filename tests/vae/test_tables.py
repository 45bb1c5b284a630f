"""The model of small tables against sums in plain Python."""

import itertools
import math

import pytest
import torch

from lecturecode.vae import LatentTable

PRIOR = [0.2, 0.5, 0.3]
ROWS = [[0.1, 0.2, 0.3, 0.4], [0.25, 0.25, 0.25, 0.25], [0.7, 0.1, 0.1, 0.1]]
Q = [[0.6, 0.3, 0.1], [0.2, 0.2, 0.6], [1.0, 0.0, 0.0], [0.1, 0.8, 0.1]]
H, X = range(3), range(4)


def table(prior=PRIOR, rows=ROWS, dtype=torch.float64) -> LatentTable:
    return LatentTable(torch.tensor(prior, dtype=dtype), torch.tensor(rows, dtype=dtype))


def close(found, wanted):
    wanted = torch.tensor(wanted, dtype=found.dtype)
    tol = 1e-14 if found.dtype == torch.float64 else 1e-6
    torch.testing.assert_close(found, wanted, rtol=tol, atol=tol)


def evidence(x):
    return math.fsum(PRIOR[h] * ROWS[h][x] for h in H)


def test_joint_evidence_and_posterior(dtype):
    model = table(dtype=dtype)
    close(model.joint(), [[PRIOR[h] * ROWS[h][x] for x in X] for h in H])
    close(model.log_prob(), [math.log(evidence(x)) for x in X])
    close(model.posterior(), [[PRIOR[h] * ROWS[h][x] / evidence(x) for h in H] for x in X])


def test_the_two_parts_of_the_bound():
    bound = table().elbo(torch.tensor(Q, dtype=torch.float64))
    reconstruction = [math.fsum(Q[x][h] * math.log(ROWS[h][x]) for h in H) for x in X]
    to_prior = [math.fsum(Q[x][h] * math.log(Q[x][h] / PRIOR[h]) for h in H if Q[x][h] > 0) for x in X]
    close(bound.reconstruction, reconstruction)
    close(bound.kl, to_prior)
    close(bound.value, [a - b for a, b in zip(reconstruction, to_prior, strict=True)])


def test_the_gap_is_the_divergence_from_the_posterior():
    model = table()
    gap = model.log_prob() - model.elbo(torch.tensor(Q, dtype=torch.float64)).value
    posterior = [[PRIOR[h] * ROWS[h][x] / evidence(x) for h in H] for x in X]
    close(gap, [math.fsum(Q[x][h] * math.log(Q[x][h] / posterior[x][h]) for h in H if Q[x][h]) for x in X])
    close(model.elbo(model.posterior()).value, model.log_prob().tolist())


def test_what_q_cannot_explain_costs_everything():
    model = table([0.5, 0.5], [[1.0, 0.0], [0.5, 0.5]])
    bound = model.elbo(torch.tensor([[0.5, 0.5], [0.5, 0.5]], dtype=torch.float64))
    assert bound.value[0].isfinite()
    assert bound.reconstruction[1].item() == -math.inf
    assert bound.value[1].item() == -math.inf
    closed = table([1.0, 0.0], [[1.0, 0.0], [0.5, 0.5]]).elbo(torch.tensor([[0.5, 0.5]] * 2, dtype=torch.float64))
    assert closed.kl.tolist() == [math.inf] * 2
    assert closed.value.tolist() == [-math.inf] * 2


def test_one_step_of_em():
    data = [0.4, 0.3, 0.2, 0.1]
    weight = [[data[x] * PRIOR[h] * ROWS[h][x] / evidence(x) for h in H] for x in X]
    prior = [math.fsum(weight[x][h] for x in X) for h in H]
    found = table().em(torch.tensor(data, dtype=torch.float64))
    close(found.prior, prior)
    close(found.likelihood, [[weight[x][h] / prior[h] for x in X] for h in H])


def test_em_never_lowers_the_likelihood_and_ends_at_the_data():
    data = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    model, before = table(), -math.inf
    for _ in range(200):
        now = (data * model.log_prob()).sum().item()
        assert now >= before - 1e-15
        model, before = model.em(data), now
    assert before == pytest.approx((data * data.log()).sum().item(), abs=1e-9)  # three hidden states can fit any p(x)


def test_gradients_reach_the_tables():
    y, z = (torch.randn(*s, generator=torch.Generator().manual_seed(1), dtype=torch.float64) for s in ((3,), (3, 4)))
    q = torch.tensor(Q, dtype=torch.float64)[:2].repeat(2, 1)

    def bound(y, z):
        return LatentTable(y.softmax(-1), z.softmax(-1)).elbo(q).value

    assert torch.autograd.gradcheck(bound, (y.requires_grad_(), z.requires_grad_()))


@pytest.mark.parametrize(
    ("build", "what"),
    [
        (lambda: table([0.5, 0.6, 0.3]), r"prior sums to 1\.4, not 1"),
        (lambda: table([0.5, 0.8, -0.3]), r"prior\[2\] is -0\.3; probabilities are not negative"),
        (lambda: table(rows=[ROWS[0], [0.5] * 4, ROWS[2]]), r"likelihood sums to 2 in row \[1\], not 1"),
        (lambda: table().elbo(torch.tensor([[0.5] * 3] * 4).double()), r"q sums to 1\.5 in row \[0\], not 1"),
        (lambda: table().elbo(torch.tensor([[1.0, 0.0]] * 4).double()), r"q has shape \(4, 2\), not \(4, 3\)"),
        (lambda: table().em(torch.tensor([0.5, 0.5]).double()), r"frequencies has shape \(2,\), not \(4\)"),
        (lambda: table().em(torch.tensor([0.5] * 4).double()), r"frequencies sums to 2, not 1"),
        (lambda: table([1.0], [[1.0, 0.0]]).posterior(), r"outcome 1 has p\(x\) = 0, so p\(h\|x\) is not defined"),
        (
            lambda: table([0.5, 0.5], [[1.0, 0.0], [0.0, 1.0]]).em(torch.tensor([1.0, 0.0]).double()),
            r"no datum is left for h = 1, so p\(x\|h\) is not defined",
        ),
        (lambda: table().elbo(torch.empty(4, 3, device="meta")), r"prior is on cpu and q on meta"),
    ],
)
def test_what_is_refused(build, what):
    with pytest.raises(ValueError, match=what):
        build()


def test_two_dtypes_and_two_devices_are_refused():
    with pytest.raises(ValueError, match=r"prior is torch\.float64 and likelihood torch\.float32; give both the same"):
        LatentTable(torch.tensor(PRIOR).double(), torch.tensor(ROWS))
    with pytest.raises(ValueError, match="prior is on cpu and likelihood on meta"):
        LatentTable(torch.tensor(PRIOR), torch.empty(3, 4, device="meta"))


def test_every_small_table_normalises():
    for a, b in itertools.product([0.0, 0.25, 1.0], repeat=2):
        model = table([a, 1 - a], [[b, 1 - b], [0.5, 0.5]])
        assert model.log_prob().exp().sum().item() == pytest.approx(1, rel=1e-15)

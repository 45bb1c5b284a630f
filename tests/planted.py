"""Errors to plant in the library, one at a time, each with the equation test that must notice it.

A signed, swapped or dropped factor of the kind that a reader's eye passes over. `make test` plants those marked fast,
one for each chapter; `make verify` plants all of them.
"""

from dataclasses import dataclass

ENTROPY = "tests/equations/test_entropy_and_divergence.py::"
FITTING = "tests/equations/test_fitting_models.py::"
ELBO = "tests/equations/test_latent_variables_and_the_elbo.py::"
VAE = "tests/equations/test_variational_autoencoder.py::"
TIGHT = "tests/equations/test_how_tight_is_the_bound.py::"
HIERARCHIES = "tests/equations/test_hierarchies.py::"
EXACT = "tests/equations/test_exact.py::"
ENUMERATION = "tests/equations/test_enumeration.py::"
MEAN_FIELD = "tests/equations/test_mean_field.py::"
LEARNING = "tests/equations/test_learning.py::"
CHAINS = "tests/equations/test_chains.py::"
MONTE_CARLO = "tests/equations/test_monte_carlo.py::"


@dataclass(frozen=True)
class Plant:
    """In `file`, which holds `right` exactly once, stands `wrong` in its place: then `test` must fail."""

    name: str
    file: str
    right: str
    wrong: str
    test: str
    fast: bool = False


PLANTS = (
    Plant(
        "kl: the sign",
        "lecturecode/divergence.py",
        "return _terms(p, q - p, _log_ratio(p, q)).sum(-1)",
        "return -_terms(p, q - p, _log_ratio(p, q)).sum(-1)",
        ENTROPY + "test_kl_is_the_mean_log_ratio",
        fast=True,
    ),
    Plant(
        "kl: the order of its arguments",
        "lecturecode/divergence.py",
        "return _terms(p, q - p, _log_ratio(p, q)).sum(-1)",
        "return _terms(q, p - q, _log_ratio(q, p)).sum(-1)",
        ENTROPY + "test_kl_is_the_mean_log_ratio",
    ),
    Plant(
        "kl: the sign of the logarithm far from equality",
        "lecturecode/divergence.py",
        "_Excess.apply(ratio), difference - torch.where(",
        "_Excess.apply(ratio), difference + torch.where(",
        ENTROPY + "test_kl_as_a_sum_of_nonnegative_terms",
    ),
    Plant(
        "kl: the sign of the series near equality",
        "lecturecode/divergence.py",
        "(1 / (1 - s) - s * series.add_(1 / 3))",
        "(1 / (1 - s) + s * series.add_(1 / 3))",
        ENTROPY + "test_a_small_divergence_is_quadratic",
    ),
    Plant(
        "entropy: the sign",
        "lecturecode/divergence.py",
        "return torch.special.entr(p).sum(-1)",
        "return -torch.special.entr(p).sum(-1)",
        ENTROPY + "test_entropy_is_the_mean_surprise",
    ),
    Plant(
        "js: the factor one half",
        "lecturecode/divergence.py",
        "_log_ratio(2 * q, p + q))).sum(-1) / 2",
        "_log_ratio(2 * q, p + q))).sum(-1)",
        ENTROPY + "test_jensen_shannon_is_the_mean_divergence_from_the_midpoint",
    ),
    Plant(
        "tv: the factor one half",
        "lecturecode/divergence.py",
        "return (p - q).abs().sum(-1) / 2",
        "return (p - q).abs().sum(-1)",
        ENTROPY + "test_total_variation_is_the_best_question",
    ),
    Plant(
        "Gaussian kl: the sign of the shift of the means",
        "lecturecode/divergence.py",
        "+ 0.5 * shift.square()",
        "- 0.5 * shift.square()",
        FITTING + "test_gaussian_divergence_in_one_dimension",
        fast=True,
    ),
    Plant(
        "Gaussian kl: the width that divides",
        "lecturecode/divergence.py",
        "step = (scale_p - scale_q) / scale_q\n        return",
        "step = (scale_p - scale_q) / scale_p\n        return",
        FITTING + "test_gaussian_divergence_with_diagonal_covariances",
    ),
    Plant(
        "Gaussian kl: the sign of the square of D",
        "lecturecode/divergence.py",
        "+ 0.5 * step.square().sum((-2, -1))",
        "- 0.5 * step.square().sum((-2, -1))",
        FITTING + "test_gaussian_divergence_with_full_covariances",
    ),
    Plant(
        "tables: the sign of log p(x)",
        "lecturecode/vae/tables.py",
        "return self.joint().sum(0).log()",
        "return -self.joint().sum(0).log()",
        ELBO + "test_evidence_is_the_sum_over_the_latent_variable",
    ),
    Plant(
        "tables: Bayes' rule the wrong way round",
        "lecturecode/vae/tables.py",
        "return (joint / evidence).mT",
        "return (joint * evidence).mT",
        ELBO + "test_joint_over_posterior_is_the_evidence_for_every_latent_value",
    ),
    Plant(
        "tables: the sign of the divergence from the prior",
        "lecturecode/vae/tables.py",
        "return Elbo(reconstruction, kl(q, self.prior.expand_as(q)))",
        "return Elbo(reconstruction, -kl(q, self.prior.expand_as(q)))",
        ELBO + "test_elbo_is_reconstruction_less_prior_matching",
        fast=True,
    ),
    Plant(
        "tables: an E-step that takes the prior",
        "lecturecode/vae/tables.py",
        "weight = frequencies[:, None] * self.posterior()",
        "weight = frequencies[:, None] * self.prior",
        ELBO + "test_the_m_step_counts_with_q_as_weights",
    ),
    Plant(
        "elbo: the sign of the divergence",
        "lecturecode/vae/bounds.py",
        "return self.reconstruction - self.kl",
        "return self.reconstruction + self.kl",
        VAE + "test_estimator_is_the_mean_over_draws_less_the_divergence",
    ),
    Plant(
        "elbo: the divergence the wrong way round",
        "lecturecode/vae/bounds.py",
        "return kl(q, prior)",
        "return kl(prior, q)",
        VAE + "test_estimator_is_the_mean_over_draws_less_the_divergence",
    ),
    Plant(
        "iwae: the sign of log K",
        "lecturecode/vae/bounds.py",
        "log_weights.logsumexp(0) - math.log(draws)",
        "log_weights.logsumexp(0) + math.log(draws)",
        VAE + "test_bound_rises_with_the_number_of_draws",
    ),
    Plant(
        "iwae: the signs of prior and encoder",
        "lecturecode/vae/bounds.py",
        "+ prior.log_prob(h) - q.log_prob(h)",
        "- prior.log_prob(h) + q.log_prob(h)",
        VAE + "test_bound_rises_with_the_number_of_draws",
    ),
    Plant(
        "iwae_loss: the sign of the score's slope",
        "lecturecode/vae/bounds.py",
        "log_q.detach() + (slope * (h - h.detach()))",
        "log_q.detach() - (slope * (h - h.detach()))",
        TIGHT + "test_the_doubly_reparametrised_gradient",
        fast=True,
    ),
    Plant(
        "iwae_loss: shares for squared shares",
        "lecturecode/vae/bounds.py",
        "lambda grad: grad * share.reshape(",
        "lambda grad: grad * torch.ones_like(share).reshape(",
        TIGHT + "test_the_doubly_reparametrised_gradient",
    ),
    Plant(
        "transposed convolution: a start that counts weights which do not reach a pixel",
        "lecturecode/nn/conv.py",
        "_start(layer, 4 * a, rng)",
        "_start(layer, 16 * a, rng)",
        VAE + "test_the_transposed_convolution_is_the_adjoint",
    ),
    Plant(
        "loss: the sign of the reconstruction",
        "lecturecode/vae/model.py",
        "(kl_weight * bound.kl - bound.reconstruction)",
        "(kl_weight * bound.kl + bound.reconstruction)",
        VAE + "test_loss_is_a_sum_over_pixels_and_latents_and_a_mean_over_data",
        fast=True,
    ),
    Plant(
        "loss: the sign of the divergence",
        "lecturecode/vae/model.py",
        "(kl_weight * bound.kl - bound.reconstruction)",
        "(-kl_weight * bound.kl - bound.reconstruction)",
        VAE + "test_loss_is_a_sum_over_pixels_and_latents_and_a_mean_over_data",
    ),
    Plant(
        "encoder: the sign of log σ²",
        "lecturecode/vae/model.py",
        "(0.5 * log_variance).exp()",
        "(-0.5 * log_variance).exp()",
        VAE + "test_encoder_is_a_gaussian_with_diagonal_covariance",
    ),
    Plant(
        "encoder: variance for standard deviation",
        "lecturecode/vae/model.py",
        "(0.5 * log_variance).exp()",
        "log_variance.exp()",
        VAE + "test_encoder_is_a_gaussian_with_diagonal_covariance",
    ),
    Plant(
        "Bernoulli: the sign of the log-odds",
        "lecturecode/vae/likelihoods.py",
        "distributions.Bernoulli(logits=output,",
        "distributions.Bernoulli(logits=-output,",
        VAE + "test_decoder_is_a_distribution_over_all_images",
    ),
    Plant(
        "Gaussian: the sign of log σ",
        "lecturecode/vae/likelihoods.py",
        "self.log_sigma.exp()",
        "(-self.log_sigma).exp()",
        VAE + "test_learned_sigma_is_the_root_mean_square_residual",
    ),
    Plant(
        "draw: the sign of the noise",
        "lecturecode/rng.py",
        "torch.addcmul(d.loc, d.scale, normal(shape, rng, d.loc))",
        "torch.addcmul(d.loc, -d.scale, normal(shape, rng, d.loc))",
        VAE + "test_estimator_is_the_mean_over_draws_less_the_divergence",
    ),
    Plant(
        "hierarchy: the logarithms of a level the wrong way round",
        "lecturecode/vae/hierarchy.py",
        "(q.log_prob(h) - prior.log_prob(h)).mean(0)",
        "(prior.log_prob(h) - q.log_prob(h)).mean(0)",
        HIERARCHIES + "test_the_bound_taken_apart_from_below",
        fast=True,
    ),
    Plant(
        "hierarchy: closed forms where the level above is not drawn first",
        "lecturecode/vae/hierarchy.py",
        "self.posterior.top_down or i == len(levels) - 1",
        "True or i == len(levels) - 1",
        HIERARCHIES + "test_the_bound_taken_apart_from_below",
    ),
    Plant(
        "hierarchy: the signs of priors and encoders in the weights",
        "lecturecode/vae/hierarchy.py",
        "log_weights + prior.log_prob(h) - q.log_prob(h)",
        "log_weights - prior.log_prob(h) + q.log_prob(h)",
        HIERARCHIES + "test_the_linear_chain_is_its_joint_gaussian",
    ),
    Plant(
        "chain: standard deviation for variance",
        "lecturecode/vae/chain.py",
        "return sigma**2 * torch.eye",
        "return sigma * torch.eye",
        HIERARCHIES + "test_the_linear_chain_is_its_joint_gaussian",
    ),
    Plant(
        "conditional: the code of the next label",
        "lecturecode/vae/conditional.py",
        "one_hot(y.long(), self.classes)",
        "one_hot((y.long() + 1) % self.classes, self.classes)",
        HIERARCHIES + "test_the_conditional_bound",
    ),
    Plant(
        "alphabets: the sign of the couplings in the bias of a bit",
        "lecturecode/boltzmann/parameters.py",
        "2 * (biases - row), row.sum() / 2 - biases.sum()",
        "2 * (biases + row), row.sum() / 2 - biases.sum()",
        EXACT + "test_spins_and_bits_have_the_same_energies",
        fast=True,
    ),
    Plant(
        "alphabets: half of the constant",
        "lecturecode/boltzmann/parameters.py",
        "row.sum() / 2 - biases.sum()",
        "row.sum() / 4 - biases.sum()",
        EXACT + "test_spins_and_bits_have_the_same_energies",
    ),
    Plant(
        "conditional: bits' factor for spins",
        "lecturecode/boltzmann/machine.py",
        "torch.sigmoid((upper - lower) * self.field(s))",
        "torch.sigmoid(self.field(s))",
        EXACT + "test_one_unit_given_all_others",
    ),
    Plant(
        "thermodynamics: the sign of the energy in the entropy",
        "lecturecode/boltzmann/machine.py",
        "return free_energy, energy, log_z - mean, variance",
        "return free_energy, energy, log_z + mean, variance",
        EXACT + "test_free_energy_is_energy_less_entropy",
    ),
    Plant(
        "likelihood: the sign of log Z",
        "lecturecode/boltzmann/machine.py",
        "return -self.free_energy(x, limit) - self.log_partition(limit=limit)",
        "return -self.free_energy(x, limit) + self.log_partition(limit=limit)",
        EXACT + "test_the_gradient_has_n_times_the_model_term",
    ),
    Plant(
        "clamp: the sign of what a held unit does",
        "lecturecode/boltzmann/machine.py",
        "fields = self.biases[rest] + couplings[rest][:, units] @ held",
        "fields = self.biases[rest] - couplings[rest][:, units] @ held",
        ENUMERATION + "test_a_clamped_unit_is_a_bias_of_the_others",
    ),
    Plant(
        "three groups: the scale of a row left out",
        "lecturecode/boltzmann/leaf_sums.py",
        "yield block.log_scale + block.over_b(m)",
        "yield 0 * block.log_scale + block.over_b(m)",
        ENUMERATION + "test_z_is_a_matrix_product",
        fast=True,
    ),
    Plant(
        "three groups: W not transposed in the table of A and C",
        "lecturecode/boltzmann/leaf_sums.py",
        "torch.mm(outer(*scaled, y), w.mT, out=q)",
        "torch.mm(outer(*scaled, y), w, out=q)",
        ENUMERATION + "test_moments_from_three_products",
    ),
    Plant(
        "lattice: the sign of a bond between blocks",
        "lecturecode/boltzmann/lattice.py",
        "[[1.0, -1.0], [-1.0, 1.0]]",
        "[[-1.0, 1.0], [1.0, -1.0]]",
        MEAN_FIELD + "test_means_are_derivatives_of_the_lattice_sum",
        fast=True,
    ),
    Plant(
        "lattice: the sign of the scale of a row",
        "lecturecode/boltzmann/lattice.py",
        "self.scale = self.scale + largest",
        "self.scale = self.scale - largest",
        MEAN_FIELD + "test_the_infinite_magnet",
    ),
    Plant(
        "ising: a bond stored once",
        "lecturecode/boltzmann/ising.py",
        "couplings + couplings.mT",
        "(couplings + couplings.mT) / 2",
        MEAN_FIELD + "test_where_mean_field_orders",
    ),
    Plant(
        "ais: the sign of the work",
        "lecturecode/markov/ais.py",
        "_energies(energy, x, grid[k - 1]) - _energies(energy, x, grid[k])",
        "_energies(energy, x, grid[k]) - _energies(energy, x, grid[k - 1])",
        LEARNING + "test_the_mean_weight_is_the_ratio",
        fast=True,
    ),
    Plant(
        "ais: a kernel for the temperature after",
        "lecturecode/markov/ais.py",
        "_moved(kernel(grid[k]), x, rng)",
        "_moved(kernel(grid[k - 1]), x, rng)",
        LEARNING + "test_the_weight_of_a_path",
    ),
    Plant(
        "restricted: the sign of the visible biases in F",
        "lecturecode/boltzmann/restricted.py",
        "return -(x * self.visible_bias).sum(-1) - torch.logaddexp(",
        "return (x * self.visible_bias).sum(-1) - torch.logaddexp(",
        LEARNING + "test_free_energy",
    ),
    Plant(
        "restricted: half the distance between the values of a unit",
        "lecturecode/boltzmann/restricted.py",
        "torch.sigmoid((self.alphabet[1] - self.alphabet[0]) * field)",
        "torch.sigmoid(field)",
        LEARNING + "test_conditionals",
    ),
    Plant(
        "Gaussian restricted machine: the mean of another energy",
        "lecturecode/boltzmann/gaussian.py",
        "mean = self.visible_bias + h @ self.weights.mT",
        "mean = self.visible_bias + self.sigma.square() * (h @ self.weights.mT)",
        LEARNING + "test_gaussian_conditionals",
    ),
    Plant(
        "contrastive loss: the sign of the negative phase",
        "lecturecode/boltzmann/learning.py",
        "return data - weights.detach() @",
        "return data + weights.detach() @",
        LEARNING + "test_one_loss_for_all_negative_phases",
    ),
    Plant(
        "chain: the step backwards is the step forwards",
        "lecturecode/markov/chain.py",
        "joint = (self.T * p).mT  # [j, i]",
        "joint = self.T * p",
        CHAINS + "test_reversal",
        fast=True,
    ),
    Plant(
        "stationary: a row of T read as its column",
        "lecturecode/markov/stationary.py",
        "p[k] = torch.dot(T[k, :k], p[:k]) / leaving[k]",
        "p[k] = torch.dot(T[:k, k], p[:k]) / leaving[k]",
        CHAINS + "test_elimination",
    ),
    Plant(
        "mixing: the last time that is too far",
        "lecturecode/markov/spectrum.py",
        "return steps + 1",
        "return steps",
        CHAINS + "test_mixing_time",
    ),
    Plant(
        "rates: a factorial that is one off",
        "lecturecode/markov/matrices.py",
        "(short / k) * (jumps @ T)",
        "(short / (k + 1)) * (jumps @ T)",
        CHAINS + "test_exponential",
    ),
    Plant(
        "hitting: absorbed from the wrong side",
        "lecturecode/markov/hitting.py",
        "right = torch.stack([T[states][:, inside].sum(0) for states in parts], 1)",
        "right = torch.stack([T[inside][:, states].sum(1) for states in parts], 1)",
        CHAINS + "test_gambler",
    ),
    Plant(
        "mala: the drift of the way back left out",
        "lecturecode/markov/continuous.py",
        "back = (x - other - self.tau * slope_there).square().sum(-1)",
        "back = (x - other).square().sum(-1)",
        MONTE_CARLO + "test_mala_acceptance",
        fast=True,
    ),
    Plant(
        "langevin: the noise of half the variance",
        "lecturecode/markov/continuous.py",
        "return x + self.tau * slope + math.sqrt(2 * self.tau) * normal(",
        "return x + self.tau * slope + math.sqrt(self.tau) * normal(",
        MONTE_CARLO + "test_langevin_step",
    ),
    Plant(
        "hmc: the kinetic energy without its half",
        "lecturecode/markov/continuous.py",
        "start = value - (momentum.square() * inverse).sum(-1) / 2",
        "start = value - (momentum.square() * inverse).sum(-1)",
        MONTE_CARLO + "test_hmc_acceptance_and_its_mean",
    ),
    Plant(
        "clusters: a bond for half the coupling",
        "lecturecode/markov/clusters.py",
        "self._chance = -torch.expm1(-2 * self.couplings.abs())",
        "self._chance = -torch.expm1(-self.couplings.abs())",
        MONTE_CARLO + "test_the_cluster_step_is_reversible",
    ),
    Plant(
        "clusters: the field of a cluster with the other sign",
        "lecturecode/markov/clusters.py",
        "stays = torch.sigmoid(2 * member",
        "stays = torch.sigmoid(-2 * member",
        MONTE_CARLO + "test_the_cluster_step_is_reversible",
    ),
)

"""torch.distributions: log-probabilities, divergences, transforms, reparameterised."""

import json

import torch
from torch import distributions as D

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
a = torch.tensor([0.5, 1.5, 2.5], device=device)
b = torch.tensor([1.0, 2.0, 0.7], device=device)
p = torch.tensor([0.2, 0.3, 0.5], device=device)
scale = torch.tensor([[2.0, 0.3, 0], [0.3, 1.0, 0.2], [0, 0.2, 1.5]], device=device)
made = {
    "normal": D.Normal(a, b),
    "laplace": D.Laplace(a, b),
    "gamma": D.Gamma(a, b),
    "beta": D.Beta(a, b),
    "dirichlet": D.Dirichlet(a),
    "categorical": D.Categorical(p),
    "bernoulli": D.Bernoulli(p),
    "poisson": D.Poisson(a),
    "exponential": D.Exponential(b),
    "uniform": D.Uniform(a, a + b),
    "student": D.StudentT(a + 2, a, b),
    "multivariate": D.MultivariateNormal(a, covariance_matrix=scale),
    "lognormal": D.LogNormal(a, b),
    "gumbel": D.Gumbel(a, b),
    "cauchy": D.Cauchy(a, b),
    "weibull": D.Weibull(a, b),
    "von_mises": D.VonMises(a, b),
    "geometric": D.Geometric(p),
    "binomial": D.Binomial(5, p),
    "negative_binomial": D.NegativeBinomial(5, p),
    "multinomial": D.Multinomial(6, p),
    "half_normal": D.HalfNormal(b),
    "relaxed": D.RelaxedBernoulli(torch.tensor(0.5, device=device), p),
    "one_hot": D.OneHotCategorical(p),
    "independent": D.Independent(D.Normal(a, b), 1),
    "mixture": D.MixtureSameFamily(D.Categorical(p), D.Normal(a, b)),
    "low_rank": D.LowRankMultivariateNormal(a, scale[:, :1], b),
    "kumaraswamy": D.Kumaraswamy(a, b),
    "pareto": D.Pareto(a, b),
    "wishart": D.Wishart(torch.tensor(5.0, device=device), covariance_matrix=scale),
}
points = {
    "beta": p,
    "dirichlet": p,
    "categorical": torch.tensor([0, 2, 1], device=device),
    "bernoulli": torch.tensor([0.0, 1, 1], device=device),
    "uniform": a + 0.3,
    "multinomial": torch.tensor([1.0, 2, 3], device=device),
    "one_hot": torch.tensor([0.0, 1, 0], device=device),
    "relaxed": p,
    "kumaraswamy": p,
    "pareto": a + 0.01,
    "wishart": scale,
    **{n: torch.tensor([0.0, 1, 2], device=device) for n in ("poisson", "geometric")},
    **{
        n: torch.tensor([1.0, 2, 3], device=device)
        for n in ("binomial", "negative_binomial")
    },
}
figures = {}
for name, one in made.items():
    drawn = one.sample((4,))
    assert drawn.device.type == device, name
    assert one.sample().shape == drawn.shape[1:], name
    at = points.get(name, a)
    figures[name] = one.log_prob(at).sum().item()
    if one.has_rsample:
        assert torch.isfinite(one.rsample((2,))).all(), name
for name in (
    "normal",
    "gamma",
    "categorical",
    "bernoulli",
    "multivariate",
    "exponential",
):
    figures["entropy_" + name] = made[name].entropy().sum().item()
figures["kl"] = [
    D.kl_divergence(made["normal"], D.Normal(b, a)).sum().item(),
    D.kl_divergence(made["gamma"], D.Gamma(b, a)).sum().item(),
    D.kl_divergence(D.Categorical(p), D.Categorical(p.flip(0))).item(),
    D.kl_divergence(made["beta"], D.Beta(b, a)).sum().item(),
    D.kl_divergence(made["dirichlet"], D.Dirichlet(b)).item(),
]
flow = D.TransformedDistribution(
    D.Normal(torch.zeros(3, device=device), 1.0),
    [D.AffineTransform(a, b), D.SigmoidTransform()],
)
figures["flow"] = flow.log_prob(p).sum().item()
figures["icdf"] = made["normal"].icdf(p).tolist()
figures["cdf"] = made["gamma"].cdf(a).tolist()
mean = torch.zeros(3, device=device, requires_grad=True)
(D.Normal(mean, 1.0).rsample((500,)) - 2).pow(2).mean().backward()
figures["reparameterised"] = bool((mean.grad < 0).all())
gumbel = torch.nn.functional.gumbel_softmax(p.log().expand(50, 3), tau=0.5, hard=True)
figures["gumbel"] = gumbel.sum().item()
print(json.dumps(figures))

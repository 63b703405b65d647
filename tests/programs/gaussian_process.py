"""A Gaussian process: Cholesky, triangular solves, log determinants, kernels learnt."""

import json
import math

import torch

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
x = torch.linspace(0, 1, 24, dtype=torch.float64).to(device)[:, None]
y = torch.sin(6 * x[:, 0]) + 0.1 * torch.randn(24, dtype=torch.float64).to(device)
params = torch.zeros(3, dtype=torch.float64, device=device, requires_grad=True)


def kernel(a, b, params):
    scale, length, _ = params.exp()
    return scale * torch.exp(-0.5 * torch.cdist(a, b) ** 2 / (0.2 * length) ** 2)


def negative_log_likelihood(params):
    noise = 0.1 * params[2].exp()
    k = kernel(x, x, params) + (noise + 1e-6) * torch.eye(24, device=device)
    chol = torch.linalg.cholesky(k)
    alpha = torch.cholesky_solve(y[:, None], chol)
    return (
        0.5 * (y @ alpha[:, 0])
        + chol.diagonal().log().sum()
        + 12 * math.log(2 * math.pi)
    )


optimizer = torch.optim.Adam([params], lr=0.1)
values = []
for _ in range(12):
    optimizer.zero_grad()
    loss = negative_log_likelihood(params)
    loss.backward()
    optimizer.step()
    values.append(loss.item())
with torch.no_grad():
    k = kernel(x, x, params) + 0.1 * params[2].exp() * torch.eye(24, device=device)
    test = torch.linspace(-0.1, 1.1, 9, dtype=torch.float64, device=device)[:, None]
    cross = kernel(x, test, params)
    chol = torch.linalg.cholesky(k)
    mean = cross.T @ torch.linalg.solve(k, y)
    half = torch.linalg.solve_triangular(chol, cross, upper=False)
    variance = kernel(test, test, params).diagonal() - (half**2).sum(0)
    sign, logdet = torch.linalg.slogdet(k)
    q, r = torch.linalg.qr(k)
    eigenvalues = torch.linalg.eigvalsh(k)
    u, s, vh = torch.linalg.svd(k, full_matrices=False)
    inverse = torch.linalg.inv(k)
    pinv = torch.linalg.pinv(k[:, :10])
    lu, pivots = torch.linalg.lu_factor(k)
    solved = torch.linalg.lu_solve(lu, pivots, y[:, None])
    fit = torch.linalg.lstsq(torch.cat([x, torch.ones_like(x)], 1), y[:, None]).solution
failed = False
try:
    torch.linalg.cholesky(-k)
except torch.linalg.LinAlgError:
    failed = True
print(
    json.dumps(
        {
            "values": values[::4],
            "mean": mean.tolist(),
            "variance": variance.tolist(),
            "logdet": [sign.item(), logdet.item()],
            "qr": (q @ r - k).abs().max().item() < 1e-10,
            "eigen": eigenvalues[-3:].tolist(),
            "svd": s[:3].tolist(),
            "inverse": (inverse @ k).trace().item(),
            "pinv": list(pinv.shape),
            "solved": (k @ solved - y[:, None]).abs().max().item() < 1e-8,
            "fit": fit[:, 0].tolist(),
            "exp": torch.linalg.matrix_exp(k / 100).trace().item(),
            "failed": failed,
            "condition": round(math.log10(torch.linalg.cond(k).item())),
        }
    )
)

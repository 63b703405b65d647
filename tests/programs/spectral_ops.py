"""Linear algebra a physicist uses: eigenproblems, SVD gradients, least squares, solvers."""

import json

import torch

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
a = torch.randn(6, 6).to(device)
h = a + a.mT
e, v = torch.linalg.eigh(h)
low = torch.linalg.eigvalsh(h.requires_grad_())[0]
(grad,) = torch.autograd.grad(low, h)
u, s, vh = torch.linalg.svd(a, full_matrices=False)
rank = torch.linalg.matrix_rank(torch.outer(a[0], a[1]))
b = torch.randn(6, 2).to(device)
x = torch.linalg.solve(a, b)
least = torch.linalg.lstsq(
    torch.randn(9, 4).to(device), torch.randn(9, 2).to(device)
).solution
chol = torch.linalg.cholesky(a @ a.mT + torch.eye(6, device=device))
inverse = torch.cholesky_inverse(chol)
tri = torch.linalg.solve_triangular(chol, b, upper=False)
expm = torch.linalg.matrix_exp(h.detach() * 0.1)
sign, logdet = torch.linalg.slogdet(a)
pinv = torch.linalg.pinv(torch.randn(5, 3).to(device))
lu, pivots = torch.linalg.lu_factor(a)
p, lower, upper = torch.lu_unpack(lu, pivots)
multi = torch.linalg.multi_dot([a, a.mT, b])
kron = torch.kron(a[:2, :2], torch.eye(2, device=device))
poly = torch.vander(torch.arange(4.0, device=device), 3)
cond = torch.linalg.cond(a)
power = torch.linalg.matrix_power(a, 3)
norms = [torch.linalg.norm(a, p).item() for p in ("fro", "nuc", 2, 1)]
house = torch.linalg.householder_product(*torch.geqrf(a))
cross = torch.linalg.cross(torch.randn(4, 3).to(device), torch.randn(4, 3).to(device))
cg = torch.zeros(6, 1, device=device)
spd, rhs = a @ a.mT + 6 * torch.eye(6, device=device), b[:, :1]
r = rhs - spd @ cg
d = r
while r.norm() > 1e-8:
    q = spd @ d
    alpha = (r.mT @ r) / (d.mT @ q)
    cg = cg + alpha * d
    fresh = r - alpha * q
    d = fresh + (fresh.mT @ fresh) / (r.mT @ r) * d
    r = fresh
try:
    torch.linalg.cholesky(-torch.eye(3, device=device))
    raised = ""
except torch.linalg.LinAlgError as error:
    raised = "positive-definite" in str(error)
print(
    json.dumps(
        {
            "e": e.tolist(),
            "grad": grad.abs().sum().item(),
            "svd": s.tolist(),
            "rebuilt": torch.allclose(u @ torch.diag(s) @ vh, a),
            "rank": rank.item(),
            "x": x.sum().item(),
            "least": least.sum().item(),
            "inverse": inverse.trace().item(),
            "tri": tri.sum().item(),
            "expm": expm.trace().item(),
            "logdet": [sign.item(), logdet.item()],
            "pinv": pinv.square().sum().item(),
            "lu": torch.allclose(p @ lower @ upper, a),
            "multi": multi.sum().item(),
            "kron": kron.sum().item(),
            "poly": poly.sum().item(),
            "cond": cond.item(),
            "power": power.sum().item(),
            "norms": norms,
            "house": (house @ house.mT).trace().item(),
            "cross": cross.sum().item(),
            "cg": torch.allclose(cg, torch.linalg.solve(spd, rhs)),
            "raised": raised,
        }
    )
)

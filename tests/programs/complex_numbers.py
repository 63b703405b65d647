"""Complex tensors: arithmetic, views, conjugates, gradients, a quantum circuit."""

import json
import math

import torch

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
a = torch.randn(4, 4, dtype=torch.complex64).to(device)
b = torch.view_as_complex(torch.randn(4, 4, 2).to(device))
c = a @ b.conj().mT
real = torch.view_as_real(c)
real[..., 0] *= 2
figures = {
    "product": [c.real.sum().item(), c.imag.sum().item(), c.abs().max().item()],
    "conjugate": [a.conj().is_conj(), a.H.resolve_conj().sum().imag.item()],
    "angle": torch.angle(a).sum().item(),
    "polar": torch.polar(a.abs(), a.angle()).sub(a).abs().max().item() < 1e-5,
    "exp": (a * 1j).exp().sum().real.item(),
    "item": [a[0, 0].item().real, a[0, 0].item().imag],
    "dtype": [str(a.dtype), str(a.real.dtype), a.is_complex()],
    "scalar": (a + (1 + 2j)).mean().imag.item(),
    "round": torch.complex(a.real.round(), a.imag.round()).sum().real.item(),
    "double": a.to(torch.complex128).cumsum(0)[-1].sum().real.item(),
}
x = torch.randn(5, dtype=torch.complex64).to(device).requires_grad_()
(x.abs() ** 2 + (x * x.conj()).real + (x**3).imag).sum().backward()
figures["gradient"] = [x.grad.real.sum().item(), x.grad.imag.sum().item()]
h = (a + a.mH) / 2
values, vectors = torch.linalg.eigh(h)
figures["eigh"] = [
    values.tolist(),
    (vectors @ torch.diag(values + 0j) @ vectors.mH - h).abs().max().item() < 1e-4,
]

hadamard = torch.tensor(
    [[1, 1], [1, -1]], dtype=torch.complex64, device=device
) / math.sqrt(2)
cnot = torch.eye(4, dtype=torch.complex64, device=device)[[0, 1, 3, 2]]


def rotation(theta):
    half = theta / 2
    row = torch.stack([half.cos(), -half.sin()]), torch.stack([half.sin(), half.cos()])
    return torch.stack(row).to(torch.complex64)


theta = torch.tensor(0.4, device=device, requires_grad=True)
optimizer = torch.optim.SGD([theta], lr=0.5)
energies = []
for _ in range(5):
    state = torch.zeros(4, dtype=torch.complex64, device=device)
    state[0] = 1
    state = torch.kron(hadamard, rotation(theta)) @ state
    state = cnot @ state
    probability = state.abs() ** 2
    energy = probability @ torch.tensor([1.0, -1.0, 0.5, 0.0], device=device)
    optimizer.zero_grad()
    energy.backward()
    optimizer.step()
    energies.append(energy.item())
figures["energies"] = energies
print(json.dumps(figures))

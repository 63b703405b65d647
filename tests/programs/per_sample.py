"""torch.func at work: per-sample gradients clipped, Hessians, ensembles, a Newton step."""

import json

import torch
from torch import nn
from torch.func import (
    functional_call,
    grad,
    grad_and_value,
    hessian,
    jacfwd,
    jacrev,
    jvp,
    linearize,
    stack_module_state,
    vmap,
)

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
model = nn.Sequential(
    nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3)
).to(device)
x, y = torch.randn(6, 1, 8, 8).to(device), (torch.arange(6) % 3).to(device)
parameters = {name: p.detach() for name, p in model.named_parameters()}


def loss_of(parameters, one, label):
    return nn.functional.cross_entropy(
        functional_call(model, parameters, one[None]), label[None]
    )


grads, values = vmap(grad_and_value(loss_of), in_dims=(None, 0, 0))(parameters, x, y)
norms = torch.stack([g.flatten(1).norm(dim=1) for g in grads.values()]).norm(dim=0)
clipped = {
    name: (g / norms.clamp(min=1).view(-1, *[1] * (g.dim() - 1))).mean(0)
    for name, g in grads.items()
}
models = [
    nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)).to(device)
    for _ in range(5)
]
stacked, buffers = stack_module_state(models)
base = models[0]
points = torch.randn(7, 4).to(device)
ensemble = vmap(lambda p, b, z: functional_call(base, (p, b), z), in_dims=(0, 0, None))(
    stacked, buffers, points
)


def energy(z):
    return (z.sin() * torch.arange(1.0, 5.0, device=device)).sum() + (z**4).sum() / 8


z = torch.randn(4).to(device)
h = hessian(energy)(z)
newton = z - torch.linalg.solve(h + 2 * torch.eye(4, device=device), grad(energy)(z))
forward = jacfwd(lambda v: v.cumsum(0) * v)(z)
backward = jacrev(lambda v: v.cumsum(0) * v)(z)
_, tangent = jvp(energy, (z,), (torch.ones(4, device=device),))
_, line = linearize(energy, z)
masked = vmap(lambda a, m: torch.where(m, a, 0.0).softmax(0), in_dims=(0, 0))(
    points, points > 0
)
drawn = vmap(lambda a: a + torch.randn_like(a), randomness="different")(points)
print(
    json.dumps(
        {
            "values": values.tolist(),
            "norms": norms.tolist(),
            "clipped": sum(g.sum().item() for g in clipped.values()),
            "ensemble": [ensemble.mean().item(), ensemble.var(0).sum().item()],
            "newton": newton.tolist(),
            "jacobians": torch.allclose(forward, backward),
            "tangent": [tangent.item(), line(torch.ones(4, device=device)).item()],
            "masked": masked.sum(0).tolist(),
            "drawn": list(drawn.shape),
        }
    )
)

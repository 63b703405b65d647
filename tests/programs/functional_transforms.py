"""torch.func: per-sample gradients, Jacobians, Hessians, ensembles, jvp and vjp."""

import copy
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
    vjp,
    vmap,
)

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
figures = {}
model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).to(device)
x = torch.randn(6, 5).to(device)
y = torch.randint(0, 3, (6,)).to(device)
params = {k: v.detach() for k, v in model.named_parameters()}


def loss_fn(params, sample, target):
    out = functional_call(model, params, (sample.unsqueeze(0),))
    return nn.functional.cross_entropy(out, target.unsqueeze(0))


per_sample = vmap(grad(loss_fn), in_dims=(None, 0, 0))(params, x, y)
figures["per_sample"] = [g.norm().item() for g in per_sample.values()]
grads, values = vmap(grad_and_value(loss_fn), in_dims=(None, 0, 0))(params, x, y)
figures["values"] = values.tolist()


def f(v):
    return torch.stack([v.sin().sum(), (v**3).prod(), v.norm()])


v = torch.rand(4).to(device) + 0.5
figures["jacrev"] = jacrev(f)(v).norm().item()
figures["jacfwd"] = jacfwd(f)(v).norm().item()
figures["hessian"] = hessian(lambda t: (t.sin() ** 2).sum() * t.prod())(v).norm().item()
value, tangent = jvp(f, (v,), (torch.ones_like(v),))
figures["jvp"] = [value.sum().item(), tangent.sum().item()]
value, pull = vjp(f, v)
figures["vjp"] = pull(torch.ones(3, device=device))[0].norm().item()
value, push = linearize(f, v)
figures["linearize"] = push(torch.ones_like(v)).sum().item()

models = []
for i in range(3):
    torch.manual_seed(i)
    models.append(nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2)).to(device))
stacked, buffers = stack_module_state(models)
base = copy.deepcopy(models[0]).to("meta")


def run(params, buffers, data):
    return functional_call(base, (params, buffers), (data,))


ensemble = vmap(run, in_dims=(0, 0, None))(stacked, buffers, x)
figures["ensemble"] = [list(ensemble.shape), ensemble.norm().item()]
one_by_one = torch.stack([m(x) for m in models])
figures["same"] = bool(torch.allclose(ensemble, one_by_one, atol=1e-5))
nested = vmap(vmap(lambda a, b: a @ b, in_dims=(None, 1)), in_dims=(0, None))(x, x.T)
figures["nested"] = (nested - x @ x.T).abs().max().item() < 1e-5
noise = vmap(lambda a: a + torch.randn_like(a), randomness="different")(x)
figures["noise"] = list(noise.shape)
figures["chunked"] = vmap(lambda a: a.pow(2).sum(), chunk_size=2)(x).sum().item()
batch_norm = vmap(lambda a: nn.functional.group_norm(a[None], 1))(x)
figures["normed"] = batch_norm.std().item()
gauss_newton = vmap(jacrev(lambda t: model(t).softmax(-1)))(x)
figures["batched_jacobian"] = [list(gauss_newton.shape), gauss_newton.norm().item()]
third = grad(lambda t: grad(lambda s: grad(lambda r: r.exp() * r**4)(s))(t))
figures["third"] = third(torch.tensor(0.7, device=device)).item()
print(json.dumps(figures))

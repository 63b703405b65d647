"""Hooks of every kind: modules, tensors, gradients, captured activations, Grad-CAM."""

import json

import torch
import torch.nn.functional as F
from torch import nn

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
torch.manual_seed(0)
cnn = nn.Sequential(
    nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 8, 3, padding=1), nn.ReLU()
)
head = nn.Linear(8, 3)
model = nn.Sequential(cnn, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head).to(device)
image = torch.randn(2, 1, 8, 8).to(device)
kept, order = {}, []


def save(name):
    def hook(module, inputs, output):
        kept[name] = output
        output.register_hook(lambda grad: kept.__setitem__(name + "_grad", grad))

    return hook


handles = [
    cnn.register_forward_hook(save("features")),
    model.register_forward_pre_hook(lambda m, args: (args[0] * 2,)),
    head.register_full_backward_hook(
        lambda m, gi, go: order.append(go[0].norm().item())
    ),
    head.register_full_backward_pre_hook(lambda m, go: (go[0] * 0.5,)),
    head.register_forward_hook(lambda m, a, k, out: out + 1, with_kwargs=True),
]
out = model(image)
out[:, 1].sum().backward()
weights = kept["features_grad"].mean(dim=(2, 3), keepdim=True)
cam = F.relu((weights * kept["features"]).sum(1)).detach()
cam = F.interpolate(cam[:, None], size=(16, 16), mode="bilinear", align_corners=False)
figures = {"out": out.sum().item(), "cam": cam.sum().item(), "order": order}
for handle in handles:
    handle.remove()
figures["removed"] = model(image).sum().item()

x = torch.ones(3, device=device, requires_grad=True)
seen = []
y = x * 3
y.retain_grad()
y.register_hook(lambda g: g * 2)
x.register_hook(lambda g: seen.append(g.sum().item()))
x.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.sum().item()))
(y**2).sum().backward()
figures["tensor"] = [seen, y.grad.tolist(), x.grad.tolist()]
a, b = x * 1, x * 2
calls = []
handle = torch.autograd.graph.register_multi_grad_hook(
    (a, b), lambda gs: calls.append(len(gs))
)
(a * b).sum().backward()
figures["multi"] = calls
packed = []


def pack(t):
    packed.append(tuple(t.shape))
    return t.cpu()


with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t.to(device)):
    loss = (torch.exp(x) * x).sum()
x.grad = None
loss.backward()
figures["packed"] = [len(packed), x.grad.sum().item()]
with torch.autograd.set_detect_anomaly(True):
    try:
        torch.sqrt(x * 0 - 1).sum().backward()
        figures["anomaly"] = "none"
    except RuntimeError as error:
        figures["anomaly"] = "nan" in str(error)
print(json.dumps(figures))

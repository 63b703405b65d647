"""Every optimizer, its variants, its state saved and loaded; every scheduler."""

# programs: tolerance=5e-3
import copy
import json
import warnings

import torch
from torch import nn, optim
from torch.optim import lr_scheduler as S

warnings.simplefilter("ignore")
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
x, y = torch.randn(16, 4).to(device), torch.randn(16, 1).to(device)
figures = {}


def make():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)).to(device)


optimizers = {
    "sgd": lambda p: optim.SGD(p, 0.1, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "sgd_fused": lambda p: optim.SGD(p, 0.1, momentum=0.9, fused=True),
    "adam": lambda p: optim.Adam(p, 0.01, amsgrad=True),
    "adam_loop": lambda p: optim.Adam(p, 0.01, foreach=False),
    "adam_fused": lambda p: optim.Adam(p, 0.01, fused=True),
    "adamw": lambda p: optim.AdamW(p, 0.01, maximize=False),
    "adam_tensor_lr": lambda p: optim.Adam(p, torch.tensor(0.01), foreach=False),
    "adamax": lambda p: optim.Adamax(p, 0.01),
    "nadam": lambda p: optim.NAdam(p, 0.01),
    "radam": lambda p: optim.RAdam(p, 0.01),
    "adagrad": lambda p: optim.Adagrad(p, 0.1),
    "adadelta": lambda p: optim.Adadelta(p, 1.0),
    "rmsprop": lambda p: optim.RMSprop(p, 0.01, centered=True, momentum=0.5),
    "rprop": lambda p: optim.Rprop(p, 0.01),
    "asgd": lambda p: optim.ASGD(p, 0.05),
    "adafactor": lambda p: optim.Adafactor(p, 0.05),
    "lbfgs": lambda p: optim.LBFGS(p, 0.5, max_iter=3),
}
if hasattr(optim, "Muon"):
    optimizers["muon"] = lambda p: optim.Muon([q for q in p if q.dim() == 2], lr=0.02)
for name, build in optimizers.items():
    model = make()
    optimizer = build(list(model.parameters()))

    def closure(model=model, optimizer=optimizer):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        return loss

    for _ in range(4):
        optimizer.step(closure)
    state = copy.deepcopy(optimizer.state_dict())
    optimizer.load_state_dict(state)
    figures[name] = optimizer.step(closure).item()

schedulers = {
    "step": lambda o: S.StepLR(o, 2, 0.5),
    "multi": lambda o: S.MultiStepLR(o, [2, 4], 0.5),
    "exponential": lambda o: S.ExponentialLR(o, 0.9),
    "cosine": lambda o: S.CosineAnnealingLR(o, 5),
    "warm": lambda o: S.CosineAnnealingWarmRestarts(o, 3),
    "one_cycle": lambda o: S.OneCycleLR(o, 0.1, total_steps=10),
    "cyclic": lambda o: S.CyclicLR(o, 0.01, 0.1, step_size_up=3),
    "linear": lambda o: S.LinearLR(o, 0.1, total_iters=4),
    "polynomial": lambda o: S.PolynomialLR(o, 6),
    "lambda": lambda o: S.LambdaLR(o, lambda e: 0.5**e),
    "chained": lambda o: S.SequentialLR(
        o, [S.ConstantLR(o, 0.1, 2), S.ExponentialLR(o, 0.9)], [2]
    ),
}
for name, build in schedulers.items():
    model = make()
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    scheduler = build(optimizer)
    for _ in range(6):
        nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()
        scheduler.step()
    figures["lr_" + name] = optimizer.param_groups[0]["lr"]

model = make()
optimizer = optim.AdamW(
    [{"params": model[0].parameters(), "lr": 1e-3}, {"params": model[2].parameters()}],
    lr=1e-2,
)
hooked = []
optimizer.register_step_post_hook(lambda *_: hooked.append(1))
for p in model.parameters():
    p.register_post_accumulate_grad_hook(lambda p: hooked.append(p.grad.norm().item()))
nn.functional.mse_loss(model(x), y).backward()
optimizer.step()
figures["hooks"] = [len(hooked), sum(hooked)]
print(json.dumps(figures))

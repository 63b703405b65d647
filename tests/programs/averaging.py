"""Stochastic weight averaging, EMA, batch norm recalibrated, early stopping."""

import copy
import json

import torch
from torch import nn
from torch.optim.swa_utils import SWALR, AveragedModel, get_ema_multi_avg_fn, update_bn
from torch.utils.data import DataLoader, TensorDataset

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
torch.manual_seed(0)
x = torch.randn(64, 5)
y = (x[:, :1] - x[:, 1:2] ** 2).contiguous()
loader = DataLoader(TensorDataset(x, y), batch_size=16)
model = nn.Sequential(nn.Linear(5, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 1))
model.to(device)
swa_model = AveragedModel(model)
ema_model = AveragedModel(
    model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True
)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=4)
swa_scheduler = SWALR(optimizer, anneal_strategy="linear", anneal_epochs=2, swa_lr=0.02)
best, patience, kept, losses = float("inf"), 0, None, []
for epoch in range(6):
    for inputs, targets in loader:
        inputs, targets = inputs.to(device), targets.to(device)
        optimizer.zero_grad()
        loss = nn.functional.huber_loss(model(inputs), targets)
        loss.backward()
        optimizer.step()
        ema_model.update_parameters(model)
    if epoch >= 3:
        swa_model.update_parameters(model)
        swa_scheduler.step()
    else:
        scheduler.step()
    losses.append(loss.item())
    if loss < best:
        best, patience, kept = loss.item(), 0, copy.deepcopy(model.state_dict())
    else:
        patience += 1
update_bn(loader, swa_model, device=device)
swa_model.eval(), ema_model.eval()
with torch.no_grad():
    whole = x.to(device)
    figures = {
        "losses": losses,
        "swa": swa_model(whole).mean().item(),
        "ema": ema_model(whole).mean().item(),
        "averaged": int(swa_model.n_averaged),
        "running": swa_model.module[1].running_mean.sum().item(),
        "kept": sum(v.float().sum().item() for v in kept.values()),
    }
print(json.dumps(figures))

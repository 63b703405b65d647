"""SyncBatchNorm in one process, CTC, embedding bags, losses few people use, AMP old style."""

import json
import warnings

import torch
import torch.nn.functional as F
from torch import nn

warnings.simplefilter("ignore")
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
net = nn.Sequential(
    nn.Conv2d(3, 6, 3, padding=1),
    nn.BatchNorm2d(6),
    nn.ReLU(),
    nn.AdaptiveAvgPool2d(1),
    nn.Flatten(),
)
net = nn.SyncBatchNorm.convert_sync_batchnorm(net).to(device)
net.eval()
x = torch.randn(4, 3, 8, 8).to(device)
kinds = [type(module).__name__ for module in net]
log_probs = torch.randn(12, 3, 7).log_softmax(-1).to(device).requires_grad_()
targets = torch.randint(1, 7, (3, 4)).to(device)
ctc = F.ctc_loss(
    log_probs,
    targets,
    torch.full((3,), 12),
    torch.tensor([4, 3, 2]),
    zero_infinity=True,
)
(ctc_grad,) = torch.autograd.grad(ctc, log_probs)
a, b, c = (torch.randn(5, 8).to(device).requires_grad_() for _ in range(3))
labels = torch.tensor([0, 1, 1, 0, 1], device=device)
sign = labels * 2 - 1
losses = {
    "triplet": F.triplet_margin_loss(a, b, c),
    "cosine": F.cosine_embedding_loss(a, b, sign),
    "hinge": F.hinge_embedding_loss(a.sum(1), sign),
    "poisson": F.poisson_nll_loss(a, b.abs()),
    "gauss": F.gaussian_nll_loss(a, b, c.square() + 0.1),
    "huber": F.huber_loss(a, b, delta=0.3),
    "soft": F.soft_margin_loss(a, b.detach().sign()),
    "multi": F.multi_margin_loss(a, labels),
    "multilabel": F.multilabel_soft_margin_loss(a, (b > 0).float()),
    "bce": F.binary_cross_entropy(a.sigmoid(), (b > 0).float()),
    "kl": F.kl_div(
        a.log_softmax(1), b.log_softmax(1), log_target=True, reduction="batchmean"
    ),
    "nll2d": F.nll_loss(
        a.view(1, 5, 2, 4).log_softmax(1),
        torch.ones(1, 2, 4, dtype=torch.long, device=device),
    ),
}
total = sum(losses.values())
total.backward()
bag = nn.EmbeddingBag(20, 4, mode="mean", padding_idx=0).to(device)
bagged = bag(
    torch.tensor([1, 0, 3, 4, 5], device=device), torch.tensor([0, 2, 4], device=device)
)
adaptive = nn.AdaptiveLogSoftmaxWithLoss(8, 20, [5, 10]).to(device)
adapted = adaptive(a.detach(), torch.tensor([0, 7, 12, 19, 3], device=device))
scaler = torch.cuda.amp.GradScaler(enabled=device == "cuda", init_scale=256.0)
linear = nn.Linear(8, 4).to(device)
optimizer = torch.optim.SGD(linear.parameters(), lr=0.1)
history = []
for _ in range(4):
    with torch.autocast(device, dtype=torch.bfloat16):
        loss = F.mse_loss(linear(a.detach()), b.detach()[:, :4])
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    nn.utils.clip_grad_norm_(linear.parameters(), 1.0)
    scaler.step(optimizer)
    scaler.update()
    history.append(loss.item())
print(
    json.dumps(
        {
            "kinds": kinds,
            "features": net(x).sum(0).tolist(),
            "ctc": [ctc.item(), ctc_grad.abs().sum().item()],
            "losses": {name: loss.item() for name, loss in losses.items()},
            "grads": [t.grad.norm().item() for t in (a, b, c)],
            "bagged": bagged.sum().item(),
            "adapted": adapted.loss.item(),
            "history": [round(one, 2) for one in history],
        }
    )
)

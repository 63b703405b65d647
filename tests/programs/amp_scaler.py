"""Mixed precision the old and the new way: torch.cuda.amp, scaler, unscale, overflow."""

# programs: tolerance=3e-2
import json
import warnings

import torch
from torch import nn

warnings.simplefilter("ignore", FutureWarning)
has_gpu = torch.cuda.is_available()
device = "cuda" if has_gpu else "cpu"
torch.manual_seed(0)


def make():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 36, 5),
    ).to(device)


x = torch.randn(16, 3, 8, 8).to(device)
y = torch.randint(0, 5, (16,)).to(device)
figures = {}
model = make()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
losses = []
for _ in range(6):
    with torch.autocast(device_type=device, dtype=torch.bfloat16):
        out = model(x)
        loss = nn.functional.cross_entropy(out, y)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    losses.append(loss.item())
figures["bfloat16"] = losses[::2]
figures["dtype"] = str(out.dtype)
with torch.autocast(device, dtype=torch.bfloat16), torch.no_grad():
    a = x[0, 0] @ x[0, 1]
    with torch.autocast(device, enabled=False):
        b = x[0, 0].float() @ x[0, 1].float()
    figures["nested"] = [str(a.dtype), str(b.dtype)]
if has_gpu:
    scaler = torch.cuda.amp.GradScaler(init_scale=2.0**8, growth_interval=3)
    model = make()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    first = last = None
    for step in range(10):
        optimizer.zero_grad(set_to_none=True)
        with torch.cuda.amp.autocast():
            out = model(x)
            loss = nn.functional.cross_entropy(out, y)
        assert out.dtype == torch.float16
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        assert torch.isfinite(norm)
        scaler.step(optimizer)
        scaler.update()
        first = first if step else loss.item()
        last = loss.item()
    assert last < first / 2, (first, last)
    assert scaler.get_scale() == 2.0**11, scaler.get_scale()
    state = scaler.state_dict()
    scaler.scale(model(x).sum() * float("inf")).backward()
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 2.0**10
    scaler.load_state_dict(state)

    class MyMM(torch.autograd.Function):
        @staticmethod
        @torch.amp.custom_fwd(device_type="cuda", cast_inputs=torch.float32)
        def forward(ctx, a, b):
            ctx.save_for_backward(a, b)
            return a.mm(b)

        @staticmethod
        @torch.amp.custom_bwd(device_type="cuda")
        def backward(ctx, grad):
            a, b = ctx.saved_tensors
            return grad.mm(b.t()), a.t().mm(grad)

    half = torch.randn(4, 4, device="cuda", dtype=torch.float16, requires_grad=True)
    with torch.cuda.amp.autocast(dtype=torch.float16):
        out = MyMM.apply(half, half)
    assert out.dtype == torch.float32
    out.sum().backward()
    assert half.grad.dtype == torch.float16
print(json.dumps(figures))

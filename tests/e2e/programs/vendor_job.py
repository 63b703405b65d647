"""A training job, and then as much memory as its quota gives; one line of JSON."""

import json

import torch

MIB = 1 << 20


def losses() -> list[float]:
    """Of a small network with dropout, trained for some steps."""
    torch.manual_seed(0)
    rows, targets = torch.rand(64, 32), torch.randint(10, (64,))
    model = torch.nn.Sequential(
        torch.nn.Linear(32, 64),
        torch.nn.LayerNorm(64),
        torch.nn.GELU(),
        torch.nn.Linear(64, 10),
    ).to("cuda")
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    rows, targets, found = rows.to("cuda"), targets.to("cuda"), []
    for _ in range(8):
        out = torch.nn.functional.log_softmax(model(rows), 1)
        loss = torch.nn.functional.nll_loss(out, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


def draws() -> list[float]:
    """Three times the same: from one seed, and from a state that was kept."""
    ones, found = torch.ones(1000, device="cuda"), []
    for _ in range(2):
        torch.cuda.manual_seed(7)
        state = torch.cuda.get_rng_state()
        found.append(torch.nn.functional.dropout(ones) + torch.rand_like(ones))
    torch.cuda.set_rng_state(state)
    found.append(torch.nn.functional.dropout(ones) + torch.rand_like(ones))
    return [one.sum().item() for one in found]


def filled() -> tuple[int, str]:
    """Whole MiB until it is refused, and how."""
    kept = []
    try:
        while len(kept) < 1000:
            kept.append(torch.zeros(MIB, dtype=torch.uint8, device="cuda"))
    except torch.OutOfMemoryError as error:
        torch.cuda.synchronize()
        return len(kept), str(error)
    return len(kept), ""


report = {
    "name": torch.cuda.get_device_name(),
    "losses": losses(),
    "draws": draws(),
    "complex": torch.fft.fft(torch.arange(8.0, device="cuda")).abs().sum().item(),
    "sorted": torch.tensor([3, 1, 2], device="cuda").sort().values.tolist(),
    "half": torch.softmax(torch.ones(4, device="cuda", dtype=torch.half), 0).tolist(),
    "filled": filled(),
}
print(json.dumps(report), flush=True)

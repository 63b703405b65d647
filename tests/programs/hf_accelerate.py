"""accelerate: prepare, accumulate, mixed precision, gather, saved and loaded state."""

# programs: needs=accelerate,safetensors tolerance=2e-2
import json
import tempfile

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

figures = {}


def run(mixed_precision):
    set_seed(0)
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(
        mixed_precision=mixed_precision, gradient_accumulation_steps=2
    )
    x = torch.randn(64, 12)
    y = (x.sum(1) > 0).long()
    model = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 4, 0.5)
    loader = DataLoader(TensorDataset(x, y), batch_size=8, shuffle=False)
    model, optimizer, loader, schedule = accelerator.prepare(
        model, optimizer, loader, schedule
    )
    losses = []
    for _ in range(3):
        for inputs, targets in loader:
            with accelerator.accumulate(model):
                loss = nn.functional.cross_entropy(model(inputs), targets)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
            losses.append(accelerator.gather(loss.detach()).mean().item())
    model.eval()
    right = total = 0
    for inputs, targets in loader:
        with torch.no_grad():
            guess = model(inputs).argmax(-1)
        guess, targets = accelerator.gather_for_metrics((guess, targets))
        right += (guess == targets).sum().item()
        total += len(targets)
    with tempfile.TemporaryDirectory() as folder:
        accelerator.save_state(folder)
        before = [p.detach().clone() for p in model.parameters()]
        with torch.no_grad():
            for p in model.parameters():
                p.zero_()
        accelerator.load_state(folder)
        same = all(
            torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)
        )
        accelerator.save_model(model, folder)
    reduced = accelerator.reduce(torch.ones(2, device=accelerator.device), "sum")
    padded = accelerator.pad_across_processes(torch.ones(2, device=accelerator.device))
    accelerator.wait_for_everyone()
    accelerator.print("done with", mixed_precision)
    accelerator.free_memory()
    return {
        "first": losses[0],
        "last": losses[-1],
        "right": right / total > 0.8,
        "same": same,
        "reduced": reduced.tolist() + padded.tolist(),
        "unwrapped": type(accelerator.unwrap_model(model)).__name__,
    }


figures["no"] = run("no")
figures["bf16"] = run("bf16")
if torch.cuda.is_available():
    half = run("fp16")
    assert half["last"] < half["first"], half
    assert half["same"]
print(json.dumps(figures))

"""Loops that repeat themselves, and depart from it; prints what came out.

    repeated.py

Prints one JSON object: what each loop has computed, by name, and the counters of the
automatic plans. Nothing of it but the counters may depend on whether there are plans.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import torch
import torch.nn.functional as F
import xpool
from torch import nn

DEVICE = "cuda"


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for _ in range(4):
        layers += [nn.Linear(16, 16), nn.ReLU(), nn.Dropout(0.1)]
    return nn.Sequential(*layers, nn.Linear(16, 4)).to(DEVICE)


def batches(count: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    for number in range(count):
        size = 5 if number % 9 == 8 else 8  # the last batch of an epoch is smaller
        yield (
            torch.randn(size, 16, generator=generator),
            torch.randint(4, (size,), generator=generator),
        )


def trained() -> list[float]:
    """Adam, dropout, a schedule, an evaluation now and then."""
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 9, 0.5)
    seen = []
    for number, (x, y) in enumerate(batches(40)):
        loss = F.cross_entropy(model(x.to(DEVICE)), y.to(DEVICE))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        seen.append(loss.item())
        if number % 9 == 4:
            model.eval()
            with torch.no_grad():
                seen.append(model(x.to(DEVICE)).argmax(1).sum().item())
            model.train()
    return seen


def decoded() -> list[float]:
    """A cache that grows by one row in each step, as keys and values do."""
    torch.manual_seed(2)
    weight = torch.randn(8, 8, device=DEVICE) / 3
    cache = torch.randn(1, 8, device=DEVICE)
    seen = []
    for _ in range(40):
        query = torch.tanh(cache[-1:] @ weight)
        attention = torch.softmax(query @ cache.T / 3, dim=-1)
        cache = torch.cat([cache, torch.tanh(attention @ cache @ weight)])
        seen.append(cache[-1].sum().item())
    return seen


def changed_before_it_is_read() -> list[float]:
    """What is read in each iteration is written once more in some of them."""
    x = torch.arange(8.0, device=DEVICE)
    rows = [torch.zeros(8, device=DEVICE) for _ in range(20)]
    seen = []
    for number in range(40):
        total = (x * number).sum()
        for row in rows:
            row.add_(number)
        if number % 5 == 4:
            total += 1000
        if number % 7 == 6:
            total.copy_(torch.tensor(-float(number)))
        if number % 11 == 10:
            rows[3] = total  # another name of it is written from now on
        seen.append(total.item())
    return [*seen, *(row.sum().item() for row in rows)]


def fails_in_the_middle() -> list[str]:
    """An operation of one iteration fails on the device; the others go on."""
    table = torch.arange(12.0, device=DEVICE).reshape(6, 2)
    seen = []
    for number in range(30):
        index = torch.tensor([number % 6, 2]).to(DEVICE)
        if number == 20:
            index = index + 50
        found = F.embedding(index, table)
        for _ in range(10):
            found = found + 1
        try:
            seen.append(f"{found.sum().item():.1f}")
        except (IndexError, RuntimeError) as error:
            seen.append(type(error).__name__ + " " + str(error).split("[")[0].strip())
    return seen


def sliced() -> list[float]:
    """Data that lies on the device: only offsets differ."""
    data = torch.arange(4000.0, device=DEVICE).reshape(500, 8) / 4000
    weight = torch.eye(8, device=DEVICE)
    seen = []
    for start in range(0, 480, 12):
        part = data[start : start + 12]
        for _ in range(12):
            part = torch.relu(part @ weight + 0.125)
        seen.append(part.mean().item())
    return seen


def in_two_threads() -> list[list[float]]:
    """Two loops at once, whose operations lie between one another."""
    found: list[list[float]] = [[], []]

    def loop(which: int) -> None:
        x = torch.full((4,), float(which + 1), device=DEVICE)
        for _ in range(60):
            for _ in range(8):
                x = x * 1.01
            found[which].append(x.sum().item())

    threads = [threading.Thread(target=loop, args=(which,)) for which in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def main() -> None:
    seen = {
        loop.__name__: loop()
        for loop in (
            trained,
            decoded,
            changed_before_it_is_read,
            fails_in_the_middle,
            sliced,
            in_two_threads,
        )
    }
    remote = xpool.current_remote()
    assert remote is not None
    print(json.dumps({"seen": seen, "counters": remote.library.replay_counters()}))


if __name__ == "__main__":
    main()

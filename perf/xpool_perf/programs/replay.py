"""What a step sends and costs the client: ``xpool run replay.py RUNS THREADS``.

With automatic plans, or without them (``XPOOL_PLANS=off``): the caller says which.
"""

from __future__ import annotations

import json
import sys
import time

import torch
import xpool
from torch.nn import functional

from xpool_perf.programs.train import CLASSES, Encoder

STEPS = 20
"""Of one sample; their loss is read at the end."""

WARM_UP = 10


def main(runs: int, threads: int) -> None:
    """Measure; bytes and microseconds of a step."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = Encoder(64, 4).to("cuda")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    x, y = torch.randint(1000, (4, 16)).cuda(), torch.randint(CLASSES, (4,)).cuda()
    remote = xpool.current_remote()

    def steps(count: int) -> torch.Tensor:
        for _ in range(count):
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(x), y)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return loss.detach()

    steps(WARM_UP).item()
    nbytes, client_us, records = [], [], []
    for _ in range(runs):
        before, began = remote.statistics(), time.process_time()
        steps(STEPS).item()
        client_us.append((time.process_time() - began) * 1e6 / STEPS)
        after = remote.statistics()
        nbytes.append((after["received_nbytes"] - before["received_nbytes"]) / STEPS)
        records.append((after["executed_ops"] - before["executed_ops"]) / STEPS)
    print(json.dumps({"bytes": nbytes, "client_us": client_us, "ops": records}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))

"""Several threads on one device: inference in a pool, training beside it, a queue."""

import json
import queue
import threading
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import nn

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)).to(device).eval()
inputs = [torch.randn(5, 8) for _ in range(24)]


@torch.inference_mode()
def infer(x):
    return model(x.to(device)).softmax(-1).cpu()


with ThreadPoolExecutor(4) as threads:
    results = list(threads.map(infer, inputs))
alone = [infer(x) for x in inputs]
same = all(torch.equal(a, b) for a, b in zip(results, alone, strict=True))

losses = {}


def train(seed):
    generator = torch.Generator().manual_seed(seed)
    net = nn.Linear(8, 1).to(device)
    with torch.no_grad():
        net.weight.copy_(torch.randn(1, 8, generator=generator))
        net.bias.zero_()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    x = torch.randn(32, 8, generator=generator).to(device)
    for _ in range(10):
        optimizer.zero_grad()
        loss = (net(x) - x.sum(1, keepdim=True)).pow(2).mean()
        loss.backward()
        optimizer.step()
    losses[seed] = loss.item()


workers = [threading.Thread(target=train, args=(seed,)) for seed in range(4)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()

todo, done = queue.Queue(maxsize=2), []


def consume():
    while (batch := todo.get()) is not None:
        done.append((batch @ batch.T).trace().item())


consumer = threading.Thread(target=consume, daemon=True)
consumer.start()
for i in range(6):
    todo.put(torch.full((2, 2), float(i)).to(device))
todo.put(None)
consumer.join()
print(json.dumps({"same": same, "losses": [losses[i] for i in range(4)], "done": done}))

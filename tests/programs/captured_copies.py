"""A captured CUDA graph with copies from and to pinned host memory in it."""

import json

import torch
from torch import nn

on_gpu = torch.cuda.is_available()
device = "cuda" if on_gpu else "cpu"
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 2)).to(device)
staging = torch.zeros(4, 6, pin_memory=on_gpu)
answer = torch.zeros(4, 2, pin_memory=on_gpu)
static = torch.zeros(4, 6, device=device)
batches = [torch.randn(4, 6) for _ in range(3)]
results = []


def work():
    static.copy_(staging, non_blocking=True)
    answer.copy_(model(static), non_blocking=True)


with torch.no_grad():
    if on_gpu:
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            work()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            work()
    for batch in batches:
        staging.copy_(batch)
        graph.replay() if on_gpu else work()
        if on_gpu:
            torch.cuda.synchronize()
        results.append(answer.sum(0).tolist())
print(json.dumps({"results": results}))

"""Data loading: workers, pinning, a prefetcher on its own stream, samplers, collating."""

import json

import numpy as np
import torch
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
    random_split,
)

has_gpu = torch.cuda.is_available()
device = torch.device("cuda" if has_gpu else "cpu")


class Records(Dataset):
    def __len__(self):
        return 30

    def __getitem__(self, i):
        picture = np.full((3, 4, 4), i, dtype=np.uint8)
        return {
            "picture": picture,
            "label": i % 3,
            "name": f"n{i}",
            "size": (4, float(i)),
        }


class Lines(IterableDataset):
    def __iter__(self):
        info = torch.utils.data.get_worker_info()
        start, step = (info.id, info.num_workers) if info else (0, 1)
        for i in range(start, 20, step):
            yield torch.tensor([i, i * i])


class Prefetcher:
    def __init__(self, loader):
        self.loader = loader
        self.stream = torch.cuda.Stream() if has_gpu else None

    def __iter__(self):
        following = None
        for batch in self.loader:
            if self.stream is None:
                yield batch["picture"].float()
                continue
            with torch.cuda.stream(self.stream):
                coming = batch["picture"].to(device, non_blocking=True).float()
            if following is not None:
                yield following
            torch.cuda.current_stream().wait_stream(self.stream)
            coming.record_stream(torch.cuda.current_stream())
            following = coming
        if following is not None:
            yield following


def collate(items):
    items = sorted(items, key=lambda one: -one["label"])
    return default_collate(items)


if __name__ == "__main__":
    figures = {}
    loader = DataLoader(
        Records(),
        batch_size=8,
        num_workers=2,
        pin_memory=has_gpu,
        prefetch_factor=2,
        collate_fn=collate,
        persistent_workers=True,
    )
    total = torch.zeros((), device=device)
    for _ in range(2):
        for picture in Prefetcher(loader):
            total += picture.mean()
    figures["prefetched"] = total.item()
    batch = next(iter(loader))
    figures["batch"] = [batch["name"][0], batch["size"][1].sum().item()]
    if has_gpu:
        assert batch["picture"].is_pinned()
    lines = DataLoader(Lines(), batch_size=4, num_workers=2)
    figures["lines"] = sum(b.to(device).sum().item() for b in lines)
    data = TensorDataset(torch.arange(20.0).to(device), torch.arange(20).to(device))
    generator = torch.Generator().manual_seed(3)
    part, rest = random_split(data, [15, 5], generator=generator)
    loader = DataLoader(
        part, batch_size=4, shuffle=True, generator=generator, drop_last=True
    )
    figures["on_device"] = [len(loader), sum(len(a) for a, _ in loader)]
    weights = [0.0] * 10 + [1.0] * 10
    sampler = WeightedRandomSampler(weights, 12, generator=generator)
    loader = DataLoader(ConcatDataset([data, Subset(data, [0, 1])]), 6, sampler=sampler)
    figures["weighted"] = min(int(b.min()) for _, b in loader) >= 10
    batches = BatchSampler(RandomSampler(data, generator=generator), 7, drop_last=False)
    figures["batches"] = [len(b) for b in batches]
    print(json.dumps(figures))

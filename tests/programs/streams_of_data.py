"""Iterable datasets over workers, a prefetching copier, packed sequences, saved states."""

import io
import json
import os
import tempfile

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

device = "cuda" if torch.cuda.is_available() else "cpu"
on_gpu = device == "cuda"
torch.manual_seed(0)


class Walks(IterableDataset):
    def __iter__(self):
        info = get_worker_info()
        first, step = (0, 1) if info is None else (info.id, info.num_workers)
        for i in range(first, 24, step):
            generator = torch.Generator().manual_seed(i)
            walk = torch.randn(3 + i % 5, 2, generator=generator).cumsum(0)
            yield walk, i % 3


def collate(items):
    items = sorted(items, key=lambda one: -len(one[0]))
    walks, labels = zip(*items)
    return (
        pad_sequence(walks, batch_first=True),
        torch.tensor([len(w) for w in walks]),
        torch.tensor(labels),
    )


class Prefetcher:
    def __init__(self, loader):
        self.loader = loader
        self.stream = torch.cuda.Stream() if on_gpu else None

    def __iter__(self):
        ready = None
        for walks, lengths, labels in self.loader:
            if on_gpu:
                with torch.cuda.stream(self.stream):
                    moved = (
                        walks.to(device, non_blocking=True),
                        lengths,
                        labels.to(device, non_blocking=True),
                    )
            else:
                moved = walks, lengths, labels
            if ready is not None:
                yield ready
            if on_gpu:
                torch.cuda.current_stream().wait_stream(self.stream)
            ready = moved
        yield ready


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(2, 12, num_layers=2, batch_first=True, bidirectional=True)
        self.out = nn.Linear(24, 3)

    def forward(self, walks, lengths):
        packed = pack_padded_sequence(walks, lengths, batch_first=True)
        states, (h, _) = self.rnn(packed)
        states, _ = pad_packed_sequence(states, batch_first=True)
        return self.out(states.amax(1) + torch.cat([h[-2], h[-1]], -1))


def main():
    net = Net().to(device)
    optimizer = torch.optim.RMSprop(net.parameters(), lr=1e-2, momentum=0.5)
    loader = DataLoader(
        Walks(),
        batch_size=6,
        num_workers=2,
        pin_memory=on_gpu,
        collate_fn=collate,
        prefetch_factor=2,
    )
    losses = []
    for _ in range(2):
        for walks, lengths, labels in Prefetcher(loader):
            optimizer.zero_grad(set_to_none=True)
            loss = F.cross_entropy(net(walks, lengths), labels)
            loss.backward()
            nn.utils.clip_grad_value_(net.parameters(), 0.5)
            optimizer.step()
            losses.append(loss.item())
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "state.pt")
        torch.save({"net": net.state_dict(), "optimizer": optimizer.state_dict()}, path)
        on_cpu = torch.load(path, map_location="cpu", weights_only=True)
        there = torch.load(path, map_location=torch.device(device), weights_only=True)
        mapped = torch.load(
            path, map_location=lambda storage, place: storage, mmap=True
        )
    other = Net().to(device)
    other.load_state_dict(on_cpu["net"])
    again = torch.optim.RMSprop(other.parameters(), lr=1e-2, momentum=0.5)
    again.load_state_dict(there["optimizer"])
    walks = torch.randn(2, 5, 2).to(device)
    same = torch.equal(
        net(walks, torch.tensor([5, 4])), other(walks, torch.tensor([5, 4]))
    )
    buffer = io.BytesIO()
    torch.save(optimizer, buffer)
    print(
        json.dumps(
            {
                "losses": losses,
                "same": same,
                "devices": [
                    str(on_cpu["net"]["out.bias"].device),
                    mapped["net"]["out.bias"].device.type,
                ],
                "kept": again.state_dict()["state"][0]["square_avg"].sum().item(),
                "size": len(buffer.getvalue()) > 1000,
            }
        )
    )


if __name__ == "__main__":
    main()

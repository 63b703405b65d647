"""Train a small CNN on scikit-learn's 1,797 scanned digits.

python digits_cnn.py [--epochs 8] [--batch-size 64] [--seed 0] [--json PATH]
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def make_model() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(64, 128, 3, padding=1, bias=False),
        nn.BatchNorm2d(128),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(128, 10),
    )


def make_loaders(batch_size: int, seed: int) -> tuple[DataLoader, DataLoader]:
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(digits.target)
    train, test = train_test_split(
        range(len(labels)), test_size=0.2, stratify=digits.target, random_state=seed
    )
    train_set = TensorDataset(images[train], labels[train])
    test_set = TensorDataset(images[test], labels[test])
    train_loader = DataLoader(
        train_set,
        batch_size=batch_size,
        shuffle=True,
        generator=torch.Generator().manual_seed(seed),
        num_workers=1,
        persistent_workers=True,
        pin_memory=torch.cuda.is_available(),
    )
    return train_loader, DataLoader(test_set, batch_size=256)


def train_one_epoch(model, loader, optimizer, scheduler, device) -> float:
    model.train()
    total = torch.zeros((), device=device)
    for images, labels in loader:
        images = images.to(device, non_blocking=True)
        labels = labels.to(device, non_blocking=True)
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        total += loss.detach() * len(labels)
    return total.item() / len(loader.dataset)


def accuracy(model, loader, device) -> float:
    model.eval()
    correct = torch.zeros((), dtype=torch.int64, device=device)
    with torch.no_grad():
        for images, labels in loader:
            predicted = model(images.to(device)).argmax(dim=1)
            correct += (predicted == labels.to(device)).sum()
    return correct.item() / len(loader.dataset)


def save_and_load(model, device) -> nn.Module:
    """A second model with the first one's weights, by way of a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "digits_cnn.pt"
        torch.save(model.state_dict(), path)
        copy = make_model().to(device)
        copy.load_state_dict(torch.load(path, map_location=device))
    return copy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    args = parser.parse_args()

    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    torch.cuda.manual_seed_all(args.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    device_name = torch.cuda.get_device_name(0) if device == "cuda" else "cpu"
    print(f"device: {device_name}")

    train_loader, test_loader = make_loaders(args.batch_size, args.seed)
    model = make_model().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1e-2, total_steps=args.epochs * len(train_loader)
    )

    losses = []
    started = time.perf_counter()
    for epoch in range(1, args.epochs + 1):
        loss = train_one_epoch(model, train_loader, optimizer, scheduler, device)
        losses.append(loss)
        print(f"epoch {epoch}: loss {loss:.6f}")
    train_s = time.perf_counter() - started

    test_accuracy = accuracy(save_and_load(model, device), test_loader, device)
    print(f"test accuracy: {test_accuracy:.4f}")
    print(f"training loop: {train_s:.2f} s")
    if args.json:
        figures = {
            "device": device_name,
            "losses": losses,
            "accuracy": test_accuracy,
            "train_s": train_s,
            "threads": torch.get_num_threads(),
        }
        args.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()

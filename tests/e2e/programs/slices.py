"""What tenants of one device do; each prints lines that a test waits for."""

import collections
import sys
import threading
import time

import torch

MIB = 1 << 20


def say(*words: object) -> None:
    print(*words, flush=True)


def hold() -> None:
    """Holds 100 MiB and tells what it sees of its quota."""
    kept = torch.ones(100 * MIB // 4, device="cuda")
    kept.sum().item()
    seen = None
    while True:
        free, total = torch.cuda.mem_get_info()
        if (free, total) != seen:
            seen = free, total
            say("sees", free, total)
        torch.ones(8, device="cuda").sum().item()
        time.sleep(0.02)


def want() -> None:
    """Asks for 300 MiB; waits for them if it may."""
    torch.ones(1, device="cuda").sum().item()
    say("asks")
    began = time.monotonic()
    try:
        got = torch.ones(300 * MIB // 4, device="cuda")
        say("has", int(got.sum().item()), round(time.monotonic() - began, 2))
    except torch.OutOfMemoryError as error:
        say("fails", round(time.monotonic() - began, 2), error)


def own() -> None:
    """Asks for 200 MiB while another thread holds as much, and lets go of it then."""
    kept = [torch.ones(200 * MIB // 4, device="cuda")]
    kept[0].sum().item()
    timer = threading.Timer(1.0, kept.clear)
    timer.start()
    began = time.monotonic()
    got = torch.ones(200 * MIB // 4, device="cuda")
    say("has", int(got.sum().item()), round(time.monotonic() - began, 2))
    time.sleep(600)


def greedy() -> None:
    """Allocates whatever there is, and what there can't be, again and again."""
    say("begins")
    refused = 0
    while True:
        kept = []
        try:
            torch.empty(1 << 62, dtype=torch.uint8, device="cuda")
        except torch.OutOfMemoryError:
            refused += 1
        try:
            while True:
                kept.append(torch.empty(8 * MIB, device="cuda"))
        except torch.OutOfMemoryError:
            say("refused", refused)


def compute() -> None:
    """Products with a known sum, without a pause."""
    a = torch.ones(192, 192, device="cuda")
    say("begins")
    while True:
        b = a
        for _ in range(50):
            b = (b @ a) / 192
        assert b.sum().item() == 192 * 192
        say("computed")


def busy(size: int = 192) -> None:
    """Products without a pause, some groups of them ahead of the device."""
    a = torch.ones(size, size, device="cuda") / size
    under_way = collections.deque()
    say("begins")
    while True:
        b = a
        for _ in range(20):
            b = b @ a
        event = torch.cuda.Event()
        event.record()
        under_way.append(event)
        if len(under_way) > 8:
            under_way.popleft().synchronize()
            say("did")


def quick() -> None:
    """As ``busy``, of products that cost the host next to nothing."""
    busy(8)


def ahead() -> None:
    """Asks for half a minute of work at once, and waits for its end."""
    a = torch.rand(1024, 1024, device="cuda")
    out = torch.empty(1024, 1024, device="cuda")
    for _ in range(1500):
        torch.mm(a, a, out=out)
    say("asked")
    torch.cuda.synchronize()
    say("done")


def long() -> None:
    """One product after the other that nothing can interrupt for some seconds."""
    a = torch.ones(4096, 4096, device="cuda", dtype=torch.float64)
    out = torch.empty_like(a)
    torch.cuda.synchronize()
    while True:
        say("asks")
        torch.mm(a, a, out=out)
        torch.cuda.synchronize()
        say("has", int(out[0, 0].item()))


JOBS = {
    one.__name__: one
    for one in (hold, want, greedy, compute, busy, quick, ahead, long, own)
}

if __name__ == "__main__":
    JOBS[sys.argv[1]]()

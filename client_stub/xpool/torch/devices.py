"""The remote devices of this process, by what a program calls them."""

from __future__ import annotations

from typing import Any

import torch
import torch.cuda

from xpool.torch.remote import Remote


class Devices:
    """The remote devices, by what a program calls them."""

    def __init__(self, remotes: list[Remote]) -> None:
        self.remotes = remotes
        self.process = remotes[0].library.process

    @property
    def current(self) -> int:
        """This thread's device index."""
        return self.process.current_device()

    def index_of(self, device: Any) -> int:
        """The index of ``1``, ``"cuda:1"``, ``torch.device("cuda", 1)`` or None.

        Raises:
            ValueError: not a CUDA device.
            RuntimeError: there is no such device.
        """
        if isinstance(device, (str, torch.device)):
            device = torch.device(device)
            if device.type != "cuda":
                raise ValueError(f"Expected a cuda device, but got: {device}")
            device = device.index
        elif isinstance(device, torch.cuda.device):
            device = device.idx
        if device is None or device == -1:
            return self.current
        if not 0 <= int(device) < len(self.remotes):
            raise RuntimeError("CUDA error: invalid device ordinal")
        return int(device)

    def __getitem__(self, device: Any) -> Remote:
        return self.remotes[self.index_of(device)]

    def exchange(self, device: Any) -> int:
        """Make a device the current one; the one before. Negative: stay."""
        before = self.current
        if device >= 0:
            self.process.set_current_device(self.index_of(device))
        return before

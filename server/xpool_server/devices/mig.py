"""Devices that the vendor has divided: MIG instances of NVIDIA GPUs.

An instance is a device of its own: a process sees it alone, by its UUID in
``CUDA_VISIBLE_DEVICES``, as ``cuda:0``. What ``nvidia-smi -L`` prints is parsed here
and nothing is called, so that recorded texts test it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_GPU: Final = re.compile(r"GPU (\d+): (.+?) \(UUID: (GPU-[0-9a-fA-F-]+)\)")
_INSTANCE: Final = re.compile(
    r"\s+MIG (\S+)\s+Device\s+(\d+): \(UUID: (MIG-[0-9a-zA-Z/-]+)\)"
)
_PROFILE: Final = re.compile(r"(?:(\d+)c\.)?(\d+)g\.(\d+)gb(?:\+\w+(?:\.\w+)*)?")


@dataclass(frozen=True, slots=True)
class Instance:
    """A GPU that is not divided, or one instance of a GPU that is."""

    gpu_index: int
    gpu_name: str
    uuid: str
    """For ``CUDA_VISIBLE_DEVICES``."""
    profile: str = ""
    """``3g.40gb``; empty: the whole GPU."""

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.gpu_name} {self.profile}".rstrip()

    @property
    def memory_nbytes(self) -> int | None:
        """What the profile says that it has; None of a whole GPU."""
        match = _PROFILE.fullmatch(self.profile)
        return None if match is None else int(match[3]) << 30


def instances(listing: str) -> list[Instance]:
    """What ``nvidia-smi -L`` names: of a divided GPU the instances, not the GPU.

    Lines that make no sense are passed over: the tool warns on the same stream.

    >>> text = '''GPU 0: NVIDIA A100 (UUID: GPU-5a)
    ...   MIG 3g.20gb     Device  0: (UUID: MIG-1f)'''
    >>> [one.name for one in instances(text)]
    ['NVIDIA A100 3g.20gb']
    """
    found: list[Instance] = []
    gpu: tuple[int, str, str] | None = None
    is_divided = False
    for line in listing.splitlines():
        whole, part = _GPU.match(line), _INSTANCE.match(line)
        if whole is not None:
            if gpu is not None and not is_divided:
                found.append(Instance(*gpu))
            gpu, is_divided = (int(whole[1]), whole[2], whole[3]), False
        elif part is not None and gpu is not None:
            is_divided = True
            found.append(Instance(gpu[0], gpu[1], part[3], part[1]))
    if gpu is not None and not is_divided:
        found.append(Instance(*gpu))
    return found

"""The session's random generators; 0 is the one that operations use by default."""

from __future__ import annotations

from typing import Final

import torch
from xpool_protocol import limits
from xpool_protocol.errors import ArgumentInvalid, HandleUnknown

from xpool_server.devices.base import Backend

DEFAULT_GENERATOR: Final = 0


class Generators:
    """Table of handles to generators."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._table = {DEFAULT_GENERATOR: backend.default_generator()}

    def __getitem__(self, generator_id: int) -> torch.Generator:
        generator = self._table.get(generator_id)
        if generator is None:
            raise _unknown(generator_id)
        return generator

    def new(self, generator_id: int) -> None:
        """Make one with the framework's default seed."""
        if generator_id in self._table:
            raise ArgumentInvalid(f"generator {generator_id} exists already")
        if len(self._table) > limits.MAX_GENERATORS:
            raise ArgumentInvalid(
                f"a session has at most {limits.MAX_GENERATORS} generators"
            )
        self._table[generator_id] = self._backend.new_generator()

    def free(self, generator_id: int) -> None:
        """Forget one; the default one stays."""
        if generator_id == DEFAULT_GENERATOR:
            raise ArgumentInvalid("the default generator can't be freed")
        if self._table.pop(generator_id, None) is None:
            raise _unknown(generator_id)

    def read(self, generator_id: int) -> bytes:
        """The state, as ``write`` takes it."""
        return bytes(self[generator_id].get_state().tolist())

    def write(self, generator_id: int, state: bytes) -> None:
        """Set the state; the framework refuses what is none."""
        data = torch.tensor(bytearray(state), dtype=torch.uint8)
        self[generator_id].set_state(data)


def _unknown(generator_id: int) -> HandleUnknown:
    return HandleUnknown(f"generator {generator_id} does not exist or was freed")

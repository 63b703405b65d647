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
        self._beside = torch.default_generator if backend.draws_on_host else None
        """Seeded, read and written with the default one."""

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

    def seed(self, generator_id: int, seed: int) -> None:
        """Begin anew from a seed."""
        for one in self._parts(generator_id):
            one.manual_seed(seed)

    def read(self, generator_id: int) -> bytes:
        """The state, as ``write`` takes it."""
        states = (one.get_state() for one in self._parts(generator_id))
        return b"".join(bytes(state.tolist()) for state in states)

    def write(self, generator_id: int, state: bytes) -> None:
        """Set the state; the framework refuses what is none."""
        *others, last = self._parts(generator_id)
        for one in others:
            size = len(one.get_state())
            one.set_state(_state(state[:size]))
            state = state[size:]
        last.set_state(_state(state))

    def _parts(self, generator_id: int) -> tuple[torch.Generator, ...]:
        generator = self[generator_id]
        if generator_id == DEFAULT_GENERATOR and self._beside is not None:
            return generator, self._beside
        return (generator,)


def _state(data: bytes) -> torch.Tensor:
    """A tensor of its own: torch takes no view of one as a state."""
    return torch.tensor(bytearray(data), dtype=torch.uint8)


def _unknown(generator_id: int) -> HandleUnknown:
    return HandleUnknown(f"generator {generator_id} does not exist or was freed")

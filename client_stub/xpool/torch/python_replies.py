"""A server's description of results, as tensors over storages of this process."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import torch
from xpool_protocol.errors import PeerError
from xpool_protocol.values import (
    FLAG_CONJ,
    FLAG_NEG,
    DType,
    SparseTensor,
    Tensor,
    Value,
    read_value,
)
from xpool_protocol.wire import Reader

from xpool.torch.codes import DTYPES
from xpool.torch.python_storage import Storages, seat, span_items, tensor_over


class Replied:
    """Results of one call; they may lie in storages of its arguments."""

    def __init__(self, storages: Storages, known: Iterable[torch.Tensor]) -> None:
        self._storages = storages
        self._known = {
            storages.number_of(one.untyped_storage()): one.untyped_storage()
            for one in known
            if one.device == storages.device
        }

    def results(
        self, data: bytes, count: int, written: Sequence[torch.Tensor]
    ) -> list[Any]:
        """The results; written tensors get the geometry they have now.

        Args:
            data: the reply's value.
            count: how many results the schema has.
            written: tensors the call has written, in the schema's order.

        Raises:
            RuntimeError: the answer makes no sense.
        """
        try:
            reader = Reader(data)
            answer = read_value(reader)
        except PeerError as error:
            raise RuntimeError(f"xpool: the server's answer: {error}") from error
        if not (isinstance(answer, list) and len(answer) == 2 and reader.is_exhausted):
            _malformed()
        results, geometries = answer
        if not isinstance(results, list) or len(results) != count:
            _malformed()
        if not isinstance(geometries, list) or len(geometries) != len(written):
            _malformed()
        made = [self._value(one) for one in results]
        for tensor, geometry in zip(written, geometries, strict=True):
            if isinstance(geometry, Tensor):
                self._reseat(tensor, geometry)
            elif geometry is not None:
                _malformed()
        return made

    def _value(self, value: Value) -> Any:
        if isinstance(value, Tensor):
            return self._tensor(value)
        if isinstance(value, SparseTensor):
            for part in value.parts:
                self._tensor(part)  # ours by now: let go, and so freed on the server
            raise NotImplementedError(
                'xpool: sparse tensors are not supported on device "xpool"; they are on'
                ' "cuda", which needs a C++ compiler here'
            )
        if isinstance(value, list):
            return [self._value(one) for one in value]
        if isinstance(value, DType):
            return DTYPES[value.code]
        if value is None or isinstance(value, bool | int | float | complex | str):
            return value
        return _malformed()

    def _tensor(self, wire: Tensor) -> torch.Tensor:
        storage = self._storage(wire)
        tensor = tensor_over(
            storage, DTYPES[wire.dtype], wire.sizes, wire.strides, wire.offset
        )
        if wire.flags & FLAG_CONJ:
            tensor = torch._conj(tensor)
        return torch._neg_view(tensor) if wire.flags & FLAG_NEG else tensor

    def _storage(self, wire: Tensor) -> torch.UntypedStorage:
        span = span_items(wire.sizes, wire.strides)
        nbytes = (wire.offset + span) * DTYPES[wire.dtype].itemsize
        storage = self._known.get(wire.storage)
        if storage is None:
            storage = self._storages.adopted(wire.storage, nbytes)
            self._known[wire.storage] = storage
        self._storages.handle_of(storage).grown_to(nbytes)
        return self._storages.with_room(storage, nbytes)

    def _reseat(self, tensor: torch.Tensor, wire: Tensor) -> None:
        """After the call a written tensor may have another size, storage, or mark."""
        if tensor.device != self._storages.device:
            return
        number = self._storages.number_of(tensor.untyped_storage())
        now = (number, tuple(tensor.shape), tensor.stride(), tensor.storage_offset())
        if now != (wire.storage, wire.sizes, wire.strides, wire.offset):
            storage = self._storage(wire)
            seat(tensor, storage, wire.sizes, wire.strides, wire.offset)
        torch._C._set_conj(tensor, bool(wire.flags & FLAG_CONJ))
        torch._C._set_neg(tensor, bool(wire.flags & FLAG_NEG))


def _malformed() -> NoReturn:
    raise RuntimeError("xpool: the server's answer is malformed")

"""What an operation gave back: under the client's handles, or as a value to send.

``Binder.bind`` is for calls whose results the client predicted: it compares, and
copies where only the layout differs. ``Description`` is for calls whose results
only the device knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

import torch
from xpool_protocol import limits
from xpool_protocol.errors import ArgumentInvalid, OperationFailed
from xpool_protocol.values import FLAG_CONJ, FLAG_NEG, DType, Tensor, Value

from xpool_server.devices.base import Backend
from xpool_server.dtypes import DTYPE_CODES, DTYPES
from xpool_server.sparse import LAYOUT_CODES, taken_apart
from xpool_server.storages import Entry, Storages, charged_nbytes, span_nbytes

TENSOR: Final = "Tensor"
TENSORS: Final = "List[Tensor]"


def room_for(outputs: Sequence[Tensor | None], storages: Storages) -> int:
    """What the predicted results will be charged.

    Raises:
        ArgumentInvalid: an output is not a whole, new storage.
    """
    total = 0
    for output in outputs:
        if output is None:
            continue
        check_new(output)
        if output.storage in storages:
            raise ArgumentInvalid(f"storage {output.storage} exists already")
        total += charged_nbytes(span_of(output))
    return total


def check_new(output: Tensor) -> None:
    """Refuse a predicted result that is not a whole storage.

    Raises:
        ArgumentInvalid: it has an offset, or is conjugated or negated.
    """
    if output.offset or output.flags:
        raise ArgumentInvalid("a result's storage begins at its first item")


def span_of(output: Tensor) -> int:
    """Bytes of the storage that a predicted result takes."""
    return span_nbytes(output.dtype, output.sizes, output.strides)


def lies_alike(leaf: torch.Tensor, output: Tensor) -> bool:
    """Whether items lie where they were predicted, of a result of the same sizes.

    The stride of a dimension of one item is nothing to that.
    """
    if leaf.stride() == output.strides or not leaf.numel():
        return leaf.stride() == output.strides
    return all(
        size == 1 or stride == predicted
        for size, stride, predicted in zip(
            output.sizes, leaf.stride(), output.strides, strict=True
        )
    )


def leaves_of(result: Any, returns: Sequence[str]) -> Sequence[torch.Tensor | None]:
    """Tensors of a result in schema order; None where one is undefined."""
    if type(result) is torch.Tensor:
        return (result,)
    if len(returns) == 1:
        if returns[0] == TENSORS:
            return list(result)
        return (None,) if returns[0] == TENSOR else ()
    leaves: list[torch.Tensor | None] = []
    for one, kind in zip(result or (), returns, strict=True):
        if kind == TENSORS:
            leaves += one
        elif kind == TENSOR:
            leaves.append(one)
    return leaves


class Holder(Protocol):
    """Where results are kept: the session's table, or a graph's run."""

    def id_of(self, storage: torch.UntypedStorage) -> int | None:
        """The session's handle of a storage, if it has one."""

    def adopt(self, storage_id: int, storage: torch.UntypedStorage) -> Entry:
        """Give a storage its number, and charge it."""

    def check_room(self, nbytes: int) -> None:
        """Refuse what the quota does not hold."""

    def over(self, storage: torch.UntypedStorage, wire: Tensor) -> torch.Tensor:
        """A tensor of a geometry that is known to fit the storage."""


class Binder:
    """Puts results under the numbers that the client chose."""

    def __init__(self, storages: Holder, backend: Backend) -> None:
        self.relaid_outputs = 0
        self._storages = storages
        self._backend = backend
        self._device = backend.device

    def bind(
        self,
        outputs: Sequence[Tensor | None],
        leaves: Sequence[torch.Tensor | None],
    ) -> None:
        """Give each result the handle that the client chose for it.

        Raises:
            ArgumentInvalid: a prediction of number, sizes or dtype was wrong.
            QuotaExceeded: there is no room.
        """
        if len(leaves) != len(outputs):
            raise ArgumentInvalid(
                f"predicted {len(outputs)} results, got {len(leaves)}"
            )
        for output, leaf in zip(outputs, leaves, strict=True):
            if output is not None:
                self._bind_one(output, leaf)

    def _bind_one(self, output: Tensor, leaf: torch.Tensor | None) -> None:
        if leaf is None:
            raise ArgumentInvalid(
                f"predicted sizes {list(output.sizes)}, got no tensor"
            )
        if leaf.layout is not torch.strided:
            raise ArgumentInvalid(f"predicted a strided tensor, got {leaf.layout}")
        if leaf.shape != output.sizes or leaf.dtype is not DTYPES[output.dtype]:
            raise ArgumentInvalid(
                f"predicted sizes {list(output.sizes)} of {DTYPES[output.dtype]},"
                f" got {list(leaf.shape)} of {leaf.dtype}"
            )
        storages = self._storages
        storage = leaf.untyped_storage()
        if (
            lies_alike(leaf, output)
            and storage.nbytes()
            == span_nbytes(output.dtype, output.sizes, output.strides)
            and storages.id_of(storage) is None
            and leaf.storage_offset() == 0
            and leaf.device == self._device
            and not leaf.is_neg()
            and not leaf.is_conj()
        ):
            entry = storages.adopt(output.storage, storage)
            if leaf.stride() == output.strides:
                entry.views[output] = leaf
        else:
            self._relay(output, leaf)

    def _relay(self, output: Tensor, leaf: torch.Tensor) -> None:
        """Copy a result into a storage of the layout that was predicted."""
        nbytes = span_nbytes(output.dtype, output.sizes, output.strides)
        self._storages.check_room(charged_nbytes(nbytes))
        storage = self._backend.allocate(nbytes)
        if leaf.numel():
            self._storages.over(storage, output).copy_(leaf)
            self.relaid_outputs += 1
        self._storages.adopt(output.storage, storage)


class Description:
    """Names the storages of one call's results, in order of their appearance."""

    def __init__(
        self, storages: Storages, device: torch.device, first_storage: int
    ) -> None:
        self._added: list[int] = []
        self._storages = storages
        self._device = device
        self._next_id = first_storage

    def describe(
        self, results: Sequence[Any], written: Sequence[torch.Tensor | None]
    ) -> Value:
        """Results and written arguments as one value: two lists.

        Raises:
            QuotaExceeded: there is no room; nothing was kept.
            OperationFailed: a result that can't cross the wire.
        """
        try:
            return [
                [self.value(one) for one in results],
                [self.value(one) for one in written],
            ]
        except Exception:
            self.undo()
            raise

    def undo(self) -> None:
        """Drop what was added."""
        for storage_id in self._added:
            self._storages.free(storage_id)
        self._added.clear()

    def value(self, result: Any) -> Value:
        """One result: a tensor, a number, None, or a list of them."""
        if isinstance(result, torch.Tensor):
            if result.layout in LAYOUT_CODES and result.layout is not torch.strided:
                return taken_apart(result, self.tensor)
            return self.tensor(result)
        if isinstance(result, list | tuple):
            if len(result) > limits.MAX_LIST:
                raise OperationFailed(f"{len(result)} results are too many to send")
            return [self.value(one) for one in result]
        if isinstance(result, torch.dtype):
            return DType(DTYPE_CODES[result])
        if result is None or isinstance(result, bool | int | float | complex | str):
            return result
        raise OperationFailed(f"a {type(result).__name__} can't cross the wire")

    def tensor(self, result: torch.Tensor) -> Tensor:
        """A tensor; its storage gets a handle if it has none."""
        if result.layout is not torch.strided or result.dtype not in DTYPE_CODES:
            raise OperationFailed(
                f"a tensor of layout {result.layout} and {result.dtype} can't cross"
                " the wire"
            )
        if result.device != self._device:
            result = result.to(self._device)
        storage = result.untyped_storage()
        storage_id = self._storages.id_of(storage)
        if storage_id is None:
            storage_id = self._add(storage)
        flags = FLAG_CONJ if result.is_conj() else 0
        return Tensor(
            storage_id,
            DTYPE_CODES[result.dtype],
            tuple(result.shape),
            result.stride(),
            int(result.storage_offset()),
            flags | (FLAG_NEG if result.is_neg() else 0),
        )

    def _add(self, storage: torch.UntypedStorage) -> int:
        storage_id = self._next_id
        if len(self._added) >= limits.MAX_RESERVED_IDS:
            raise OperationFailed(
                f"more than {limits.MAX_RESERVED_IDS} new storages in one call"
            )
        if storage_id in self._storages or storage_id > limits.MAX_STORAGE_ID:
            raise ArgumentInvalid(f"storage {storage_id} can't be given to a result")
        self._storages.adopt(storage_id, storage)
        self._added.append(storage_id)
        self._next_id += 1
        return storage_id

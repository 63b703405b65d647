"""``torch.cuda.FloatTensor`` and its relatives, which a CPU build can't construct.

Each is replaced by a class that constructs on the remote device and leaves the rest
(``isinstance``, ``dtype``, its name) to the class that it stands for.
"""

from __future__ import annotations

import warnings
from typing import Any, Final

import torch

NAMES: Final = (
    *("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char"),
    *("Byte", "Bool"),
)


class LegacyType(type):
    """The type of the classes below."""

    stands_for: Any

    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, cls.stands_for)

    def __call__(cls, *arguments: Any, **named: Any) -> Any:
        """A tensor of uninitialized bytes by sizes, or of a sequence's values."""
        device = torch.device(named.pop("device", "cuda"))
        if device.type != "cuda":
            raise RuntimeError(
                "legacy constructor expects device type: cuda but device type:"
                f" {device.type} was passed"
            )
        if cls.is_sparse:
            if not arguments:
                arguments = ((),)
            make: Any = (
                torch.sparse_coo_tensor
                if isinstance(arguments[0], torch.Tensor)
                else _empty_sparse
            )
            return make(*arguments, dtype=cls.dtype, device=device)
        like = torch.empty(0, dtype=cls.stands_for.dtype, device=device)
        return like.new(*arguments, **named)

    def __repr__(cls) -> str:
        return f"<class '{cls.__name__}'>"

    @property
    def dtype(cls) -> torch.dtype:
        """Of its tensors."""
        dtype: torch.dtype = cls.stands_for.dtype
        return dtype

    @property
    def layout(cls) -> torch.layout:
        """Of its tensors."""
        layout: torch.layout = cls.stands_for.layout
        return layout

    @property
    def is_cuda(cls) -> bool:
        """Yes: they are on the remote device."""
        return True

    @property
    def is_sparse(cls) -> bool:
        """Whether they are sparse ones, in coordinates."""
        return cls.layout is torch.sparse_coo


def _empty_sparse(*sizes: Any, dtype: torch.dtype, device: torch.device) -> Any:
    shape = sizes[0] if not isinstance(sizes[0], int) else sizes
    return torch.empty(shape, dtype=dtype, device=device, layout=torch.sparse_coo)


def patch_legacy_tensors() -> None:
    """Replace the classes, and teach ``set_default_tensor_type`` about them."""
    sparse = torch.cuda.sparse
    for place, module in (("torch.cuda", torch.cuda), ("torch.cuda.sparse", sparse)):
        for short in NAMES:
            original = getattr(module, f"{short}Tensor", None)
            if original is None:
                continue
            # torch reads a class's C name, which is the whole of this one.
            name = f"{place}.{short}Tensor"
            made = LegacyType(name, (), {"stands_for": original, "__module__": ""})
            setattr(module, f"{short}Tensor", made)
    _patch_default_type()


def _patch_default_type() -> None:
    original = torch.set_default_tensor_type
    is_set = False

    def set_default_tensor_type(t: Any, /) -> None:
        """See torch's own; a ``torch.cuda`` type makes "cuda" the default device."""
        nonlocal is_set
        name = t if isinstance(t, str) else getattr(t, "__name__", "")
        if not isinstance(t, LegacyType) and not name.startswith("torch.cuda."):
            if is_set:
                torch.set_default_device(None)
                is_set = False
            original(t)
            return
        kind = t
        if not isinstance(kind, LegacyType):
            kind = getattr(torch.cuda, name.removeprefix("torch.cuda."), None)
        if not isinstance(kind, LegacyType):
            raise TypeError(f"invalid type object: {name!r} is no tensor type")
        if not kind.dtype.is_floating_point:
            raise TypeError(
                "only floating-point types are supported as the default type"
            )
        warnings.warn(
            "torch.set_default_tensor_type() is deprecated as of PyTorch 2.1, please"
            " use torch.set_default_dtype() and torch.set_default_device() as"
            " alternatives.",
            stacklevel=2,
        )
        torch.set_default_dtype(kind.dtype)
        torch.set_default_device("cuda")
        is_set = True

    vars(torch)["set_default_tensor_type"] = set_default_tensor_type

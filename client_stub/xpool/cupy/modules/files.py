"""Files are the client's: NumPy reads and writes them, arrays go up and come down."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from xpool.cupy import transfer
from xpool.cupy.functions import own
from xpool.cupy.ndarray import ndarray


def _host(value: Any) -> Any:
    return value.get() if isinstance(value, ndarray) else value


def _up(host: Any) -> Any:
    if not host.dtype.isnative:
        host = host.astype(host.dtype.newbyteorder("="))
    return transfer.as_array(host)


class NpzFile:
    """Arrays of an ``.npz`` file; each is uploaded when it is asked for."""

    def __init__(self, npz_file: Any) -> None:
        """Of NumPy's own."""
        self.npz_file = npz_file

    def __enter__(self) -> NpzFile:
        self.npz_file.__enter__()
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self.npz_file.__exit__(kind, error, trace)

    def __getitem__(self, key: str) -> Any:
        found = self.npz_file[key]
        return _up(found) if isinstance(found, np.ndarray) else found

    def __iter__(self) -> Iterator[str]:
        return iter(self.npz_file)

    def __len__(self) -> int:
        return len(self.npz_file)

    def __contains__(self, key: object) -> bool:
        return key in self.npz_file

    @property
    def files(self) -> list[str]:
        """Names of the arrays."""
        return list(self.npz_file.files)

    def keys(self) -> Any:
        """Names of the arrays."""
        return self.npz_file.keys()

    def close(self) -> None:
        """Close the file."""
        self.npz_file.close()


@own("cupy.load")
def load(file: Any, mmap_mode: Any = None, allow_pickle: Any = None) -> Any:
    """Read an ``.npy`` or ``.npz`` file."""
    found = np.load(file, mmap_mode, allow_pickle=bool(allow_pickle))
    if isinstance(found, np.ndarray):
        return _up(found)
    return NpzFile(found) if isinstance(found, np.lib.npyio.NpzFile) else found


@own("cupy.save")
def save(file: Any, arr: Any, allow_pickle: Any = None) -> None:
    """Write an ``.npy`` file."""
    np.save(file, _host(arr), allow_pickle=allow_pickle is not False)


@own("cupy.savez")
def savez(file: Any, *args: Any, **kwds: Any) -> None:
    """Write arrays to an ``.npz`` file."""
    np.savez(file, *map(_host, args), **{k: _host(one) for k, one in kwds.items()})


@own("cupy.savez_compressed")
def savez_compressed(file: Any, *args: Any, **kwds: Any) -> None:
    """Write arrays to a compressed ``.npz`` file."""
    named = {name: _host(one) for name, one in kwds.items()}
    np.savez_compressed(file, *map(_host, args), **named)


@own("cupy.savetxt")
def savetxt(fname: Any, X: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N803
    """Write a text file."""
    np.savetxt(fname, _host(X), *args, **kwargs)


def _reading(name: str) -> None:
    function = getattr(np, name)

    @own(f"cupy.{name}")
    def read(*args: Any, **kwargs: Any) -> Any:
        found = function(*args, **kwargs)
        if isinstance(found, tuple | list):
            return type(found)(_up(one) for one in found)
        return _up(found)

    read.__doc__ = f"As ``numpy.{name}``, then uploaded."


for _name in ("fromfile", "loadtxt", "genfromtxt", "frombuffer", "fromstring"):
    _reading(_name)
_reading("fromiter")

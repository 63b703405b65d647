"""``ndarray.flags``: how an array lies in memory."""

from __future__ import annotations

from typing import Any


class Flags:
    """``ndarray.flags``: any other attribute may be set, and means nothing."""

    def __init__(self, c_contiguous: Any, f_contiguous: Any, owndata: Any) -> None:
        self._values = (c_contiguous, f_contiguous, owndata)

    @property
    def c_contiguous(self) -> Any:
        """In row-major order without gaps."""
        return self._values[0]

    @property
    def f_contiguous(self) -> Any:
        """In column-major order without gaps."""
        return self._values[1]

    @property
    def owndata(self) -> Any:
        """No view of another array."""
        return self._values[2]

    @property
    def forc(self) -> bool:
        """Contiguous in either order."""
        return bool(self.c_contiguous or self.f_contiguous)

    @property
    def fnc(self) -> bool:
        """Contiguous in Fortran's order alone."""
        return bool(self.f_contiguous and not self.c_contiguous)

    def __getitem__(self, name: str) -> Any:
        found = getattr(self, name.lower(), None)
        if found is None or not isinstance(name, str):
            raise KeyError(f"{name} is not defined for cupy.ndarray.flags")
        return found

    def __repr__(self) -> str:
        return (
            f"  C_CONTIGUOUS : {self.c_contiguous}\n"
            f"  F_CONTIGUOUS : {self.f_contiguous}\n"
            f"  OWNDATA : {self.owndata}"
        )

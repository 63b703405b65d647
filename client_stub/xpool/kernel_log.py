"""Records a program's own kernels: modules, launches, questions about them.

CuPy's ``RawKernel`` and Triton's driver both end here. Nothing waits but a question.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from xpool_protocol import limits
from xpool_protocol.errors import UsageError
from xpool_protocol.kernel_records import (
    ATTRIBUTES,
    Extent,
    FreeModule,
    KernelArgument,
    KernelAttributes,
    KernelRecord,
    LaunchKernel,
    MakeModule,
    SetKernelAttribute,
    write_kernel_record,
)
from xpool_protocol.values import read_value
from xpool_protocol.wire import Reader, Writer

_modules: Final = itertools.count(1)
"""Numbers of modules; one sequence for all users of the process's session."""


class KernelLog:
    """One session's kernels."""

    def __init__(
        self,
        append: Callable[[bytes], int],
        next_request: Callable[[], int],
        ask: Callable[[int], bytes],
    ) -> None:
        """Record into a log.

        Args:
            append: appends one encoded record; its operation number.
            next_request: a new request id.
            ask: waits for a request's answer and returns its value's bytes; raises
                what the program is to see.
        """
        self._append, self._next_request, self._ask = append, next_request, ask
        self._dead: deque[int] = deque()

    def _post(self, record: KernelRecord) -> None:
        while self._dead:
            self._write(FreeModule(self._dead.popleft()))
        self._write(record)

    def _write(self, record: KernelRecord) -> None:
        writer = Writer()
        write_kernel_record(writer, record)
        self._append(bytes(writer.buffer))

    def make(
        self,
        language: int,
        code: bytes,
        options: Sequence[str] = (),
        names: Sequence[str] = (),
    ) -> int:
        """Have a module made; its number. A failure is told when it is used.

        Raises:
            UsageError: it is larger than a server takes.
        """
        if len(code) > limits.MAX_KERNEL_CODE_NBYTES:
            raise UsageError(
                f"a module of kernels has at most {limits.MAX_KERNEL_CODE_NBYTES} bytes"
                f" of code, and this one {len(code)}"
            )
        number = next(_modules)
        self._post(MakeModule(number, language, code, tuple(options), tuple(names)))
        return number

    def free(self, module: int) -> None:
        """Let a module go; for finalizers, so the record comes with a later one."""
        self._dead.append(module)

    def launch(
        self,
        module: int,
        name: str,
        grid: Extent,
        block: Extent,
        shared_nbytes: int,
        flags: int,
        arguments: Sequence[KernelArgument],
    ) -> None:
        """Queue a launch.

        Raises:
            ValueError: an extent that no device has.
        """
        for extent in (*grid, *block):
            if not 0 < extent <= limits.MAX_KERNEL_EXTENT:
                raise ValueError(f"a launch of {extent} blocks or threads is not valid")
        if len(arguments) > limits.MAX_KERNEL_ARGUMENTS:
            raise ValueError(f"a kernel has no {len(arguments)} arguments")
        self._post(
            LaunchKernel(
                module, name, grid, block, shared_nbytes, flags, tuple(arguments)
            )
        )

    def attributes(self, module: int, name: str) -> dict[str, int]:
        """A kernel's attributes; waits, and raises what went wrong with its module."""
        found = self._asked(module, name)
        return dict(zip(ATTRIBUTES, found, strict=True))

    def wait_for(self, module: int) -> None:
        """Wait until a module is made; raises what went wrong with it."""
        self._asked(module, "")

    def _asked(self, module: int, name: str) -> list[int]:
        request = self._next_request()
        self._post(KernelAttributes(request, module, name))
        found = read_value(Reader(self._ask(request)))
        if not isinstance(found, list) or any(type(one) is not int for one in found):
            raise UsageError("the server's answer about a kernel makes no sense")
        return [one for one in found if isinstance(one, int)]

    def set_attribute(self, module: int, name: str, attribute: str, value: int) -> None:
        """Queue a change of what a kernel may use."""
        number = ATTRIBUTES.index(attribute)
        self._post(SetKernelAttribute(module, name, number, value))

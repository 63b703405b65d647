"""``torch.cuda.CUDAGraph`` of a remote device: a captured graph is one record a replay.

Nothing runs while a graph is captured. What is allocated meanwhile and is still there
at the end keeps its storage from replay to replay, as torch promises; what is not lives
only while the graph runs. The pool of a graph is therefore a name and nothing more.
"""

from __future__ import annotations

import itertools
import weakref
from typing import Any, Final

import torch
import torch.cuda.graphs

from xpool.torch import captures

MODES: Final = ("global", "thread_local", "relaxed")
_pools = itertools.count(1)


class RemoteGraph:
    """Drop-in for ``torch.cuda.CUDAGraph``."""

    def __init__(self, keep_graph: bool = False) -> None:
        self._number: int | None = None
        self._pool: tuple[int, int] | None = None
        self._device = 0
        self._is_capturing = False
        self._end: weakref.finalize[Any, Any] | None = None

    def capture_begin(
        self,
        pool: Any = None,
        capture_error_mode: str = "global",
        check_input_liveness: bool = False,
    ) -> None:
        """Begin to capture what this thread's current stream is given.

        Args:
            pool: of another graph, or of ``graph_pool_handle``.
            capture_error_mode: one of ``MODES``; only what the capturing streams do
                is refused, in each of them.
            check_input_liveness: a graph keeps its inputs alive, so there is nothing
                to check.

        Raises:
            RuntimeError: the graph is captured already, or this is the default stream.
        """
        if capture_error_mode not in MODES:
            raise RuntimeError(
                'Unknown capture error mode. Expected "global", "thread_local", or'
                f' "relaxed", got {capture_error_mode}'
            )
        if self._number is not None or self._is_capturing:
            raise RuntimeError(
                "This CUDAGraph instance already owns a captured graph. To capture a"
                " new graph, create a new instance."
            )
        self._device = torch.cuda.current_device()
        captures.operations().capture_begin(self._device)
        captures.began()
        self._is_capturing = True
        self._pool = tuple(pool) if pool is not None else graph_pool_handle()

    def capture_end(self) -> None:
        """End the capture; ``replay`` may follow.

        Raises:
            RuntimeError: another stream is current now, or something that can't be
                captured was tried.
        """
        if not self._is_capturing:
            raise RuntimeError("capture_end called without capture_begin")
        self._is_capturing = False
        captures.ended()
        self._number = captures.operations().capture_end(self._device)
        self._end = weakref.finalize(
            self, captures.operations().graph_free, self._number
        )
        self._end.atexit = False

    def instantiate(self) -> None:
        """Nothing to do: the server has prepared the graph."""
        self._captured("instantiate")

    def replay(self) -> None:
        """Run what was captured, on the storages that it was captured with."""
        captures.operations().graph_replay(self._captured("replay"))

    def reset(self) -> None:
        """Forget the graph."""
        if self._end is not None:
            self._end()
        self._number = self._end = None

    def pool(self) -> Any:
        """The graph's pool, for another graph's ``capture_begin``."""
        self._captured("pool", or_capturing=True)
        return self._pool

    def register_generator_state(self, generator: Any) -> None:
        """Nothing to do: a generator goes on from replay to replay by itself."""

    def enable_debug_mode(self) -> None:
        """Nothing to do: there is nothing that ``debug_dump`` could show."""

    def debug_dump(self, debug_path: str) -> None:
        """Not possible: the graph is the server's."""
        raise NotImplementedError("xpool: a remote CUDA graph can't be dumped")

    def raw_cuda_graph(self) -> int:
        """Not possible: the graph is the server's."""
        raise NotImplementedError("xpool: a remote CUDA graph has no cudaGraph_t here")

    def raw_cuda_graph_exec(self) -> int:
        """Not possible: the graph is the server's."""
        raise NotImplementedError("xpool: a remote CUDA graph has no cudaGraph_t here")

    def _captured(self, what: str, *, or_capturing: bool = False) -> int:
        if self._number is None and not (or_capturing and self._is_capturing):
            raise RuntimeError(
                f"Called CUDAGraph::{what} without a preceding successful capture."
            )
        return self._number or 0


def graph_pool_handle() -> Any:
    """A new name for a pool of graphs."""
    return (0, next(_pools))


def patch_cuda_graphs() -> None:
    """Make ``torch.cuda`` capture graphs on the remote device."""
    cuda: Any = torch.cuda
    core: Any = torch._C

    class CUDAGraph(RemoteGraph):
        __doc__ = RemoteGraph.__doc__

    CUDAGraph.__module__ = "torch.cuda.graphs"
    CUDAGraph.__qualname__ = "CUDAGraph"
    core._CUDAGraph = RemoteGraph
    core._host_emptyCache = lambda: None
    for module in (cuda, cuda.graphs):
        module.CUDAGraph = CUDAGraph
        # Each its own object: Dynamo keeps rules by object.
        module.graph_pool_handle = lambda: graph_pool_handle()
        module.is_current_stream_capturing = lambda: captures.is_capturing(
            cuda.current_device()
        )
    core._graph_pool_handle = lambda: graph_pool_handle()
    core._cuda_isCurrentStreamCapturing = lambda: captures.is_capturing(
        cuda.current_device()
    )

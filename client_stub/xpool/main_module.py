"""The user's program as ``__main__``, begun and let go as the interpreter would.

``begin`` runs a script, a module or code in a module of its own that stays in
``sys.modules["__main__"]``, so that threads and exit handlers find their classes and
functions after the last line. ``let_go`` is the other end: Python drops the program's
modules after the last exit handler, when no device is left; so it is done before.
"""

from __future__ import annotations

import atexit
import builtins
import gc
import importlib.machinery
import io
import os
import runpy
import sys
import sysconfig
from types import ModuleType
from typing import Final

_OWN_MAIN: Final = sys.modules["__main__"]
_FOLDERS_OF_OTHERS: Final = tuple(
    os.path.realpath(sysconfig.get_path(name)) + os.sep
    for name in ("stdlib", "platstdlib", "purelib", "platlib")
)


def begin(arguments: list[str]) -> None:
    """Run ``SCRIPT ARGS…``, ``-m MODULE ARGS…`` or ``-c CODE ARGS…`` to its end.

    Raises:
        BaseException: whatever the program raises.
    """
    match arguments:
        case ["-m", module, *_]:
            _new_main()
            sys.argv = arguments[1:]
            sys.path.insert(0, os.getcwd())
            # What `python -m` itself calls.
            runpy._run_module_as_main(module)  # type: ignore[attr-defined]
        case ["-c", code, *rest]:
            sys.argv = ["-c", *rest]
            sys.path.insert(0, "")
            exec(compile(code, "<string>", "exec"), _new_main().__dict__)  # noqa: S102  the user's own program
        case [script, *_]:
            sys.argv = list(arguments)
            if not os.path.isfile(script) or script.endswith((".pyc", ".pyz", ".zip")):
                runpy.run_path(script, run_name="__main__")
            else:
                _run_script(script)


def let_go() -> None:
    """Drop the program's modules, and with them all that nobody else holds."""
    for name in ("last_type", "last_value", "last_traceback", "last_exc"):
        if hasattr(sys, name):
            setattr(sys, name, None)
    # A copy, since a daemon thread may be importing; and not one that stays.
    dropped = [name for name, one in [*sys.modules.items()] if _is_programs(one)]
    for name in dropped:
        del sys.modules[name]
    sys.modules["__main__"] = _OWN_MAIN
    # Exit handlers have run, and hold what they are made of.
    atexit.unregister(_OfModules({"__main__", *dropped}))  # type: ignore[arg-type]
    gc.collect()


class _OfModules:
    """Equal to every function that is defined in one of these modules."""

    def __init__(self, names: set[str]) -> None:
        self._names = names

    def __eq__(self, other: object) -> bool:
        function = getattr(other, "func", other)  # of a functools.partial
        return getattr(function, "__module__", None) in self._names

    __hash__ = None  # type: ignore[assignment]


def _run_script(script: str) -> None:
    path = os.path.abspath(script)
    # As python does: the script's folder, not ours, leads the path.
    sys.path.insert(0, os.path.dirname(os.path.realpath(path)))
    with io.open_code(path) as file:
        source = file.read()
    main = _new_main()
    main.__file__ = path
    main.__loader__ = importlib.machinery.SourceFileLoader("__main__", path)
    exec(compile(source, path, "exec"), main.__dict__)  # noqa: S102  the user's own program


def _new_main() -> ModuleType:
    main = ModuleType("__main__")
    main.__dict__["__builtins__"] = builtins
    sys.modules["__main__"] = main
    return main


def _is_programs(module: ModuleType) -> bool:
    """Whether a module is the user's: not Python's, not installed, not ours."""
    file = getattr(module, "__file__", None)
    if not isinstance(file, str) or module is _OWN_MAIN:
        return False
    name = module.__name__.partition(".")[0]
    if name in ("xpool", "xpool_protocol"):
        return False
    return not os.path.realpath(file).startswith(_FOLDERS_OF_OTHERS)

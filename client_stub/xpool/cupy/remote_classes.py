"""Classes whose objects live on the server: a number here, methods and operators there.

Made out of CuPy's table: each method is an operation by its full name, each attribute
is read when it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Final

from xpool_protocol.arrays.api import OBJECT_DUNDERS, OWN_ATTRIBUTES, SETTABLE, api
from xpool_protocol.arrays.values import ObjectMeta
from xpool_protocol.errors import PeerError

from xpool.cupy import functions
from xpool.cupy.answers import REMOTE_CLASSES, RemoteObject
from xpool.cupy.device import device
from xpool.cupy.filling import CLASSES
from xpool.cupy.functions import signature_of
from xpool.cupy.ndarray import ndarray

Given = Callable[[tuple[Any, ...], dict[str, Any]], tuple[Any, Any]]


class RemoteClass(RemoteObject):
    """Base of all of them."""

    _full: ClassVar[str] = ""
    __array_priority__ = 101
    __array_ufunc__: Any = None
    """NumPy leaves operators to these objects."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Have the server make one; nothing is made of a base."""
        if not cls._full:
            return object.__new__(cls)
        args, kwargs = cls._given(args, kwargs)
        made = device().call(cls._full, args, kwargs)
        if not isinstance(made, RemoteObject):
            raise PeerError(f"the server made no object of {cls._full}")
        if not isinstance(made, cls):
            made.__class__ = cls
        return made

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Everything is done by now."""

    @classmethod
    def _given(cls, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """What a program passes, as the server takes it."""
        return args, kwargs

    @classmethod
    def _revived(cls, meta: ObjectMeta) -> Any:
        """One that the server has made."""
        found = object.__new__(cls)
        RemoteObject.__init__(found, meta)
        return found

    def __reduce__(self) -> Any:
        name = type(self).__name__
        raise TypeError(f"cannot pickle or copy {name!r} objects: they are the pool's")

    def _attribute(self, name: str) -> Any:
        return device().call("xpool.object_attribute", (self, name), {})

    def _set_attribute(self, name: str, value: Any) -> None:
        device().call("xpool.set_attribute", (self, name, value), {})


def _method(full: str, name: str, text: str | None, doc: str) -> Callable[..., Any]:
    operation = f"{full}.{name}"

    def method(self: RemoteClass, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = self._given(args, kwargs)
        return functions.call(operation, (self, *args), kwargs)

    method.__name__, method.__qualname__ = name, operation
    method.__doc__ = doc
    signature = signature_of(text)
    if signature is not None:
        method.__signature__ = signature  # type: ignore[attr-defined]
    return method


def _class_method(full: str, name: str, text: str | None, doc: str) -> Any:
    """A method of the class itself: a maker that does without checks checks, too."""
    operation = f"{full}.{name}"

    def method(cls: type[RemoteClass], *args: Any, **kwargs: Any) -> Any:
        if name == "construct_fast":
            return cls(*args, **kwargs)
        args, kwargs = cls._given(args, kwargs)
        return functions.call(operation, args, kwargs)

    method.__name__, method.__qualname__ = name, operation
    method.__doc__ = doc
    return classmethod(method)


def _operator(full: str, name: str) -> Callable[..., Any]:
    operation = f"{full}.{name}"

    def apply(self: RemoteClass, *args: Any) -> Any:
        if name in _BINARY and args[0] is None:
            return NotImplemented
        args, _ = self._given(args, {})
        try:
            found = device().call(operation, (self, *args), {})
        except TypeError as error:
            if name in _BINARY and "Unsupported type" in str(error):
                return NotImplemented
            raise
        return found

    apply.__name__ = name
    return apply


_BINARY: Final = frozenset(
    f"__{prefix}{one}__"
    for one in ("add", "sub", "mul", "truediv", "matmul", "pow", "eq", "ne")
    for prefix in ("", "r")
)
_OF_CLASSES: Final = "(cls"
"""How the table's signature of a method of the class itself begins."""

_PLAIN: Final = {"__len__": int, "__bool__": bool}


def _reader(name: str, is_settable: bool = False) -> property:
    def put(self: RemoteClass, value: Any) -> None:
        self._set_attribute(name, value)

    return property(lambda self: self._attribute(name), put if is_settable else None)


def remote_class(
    full: str, base: type[RemoteClass] = RemoteClass, type_name: str | None = None
) -> Any:
    """Make the class of this name, and let the drop-in use it.

    Args:
        full: ``cupyx.scipy.sparse.csr_matrix``.
        base: what it has beside the table's members.
        type_name: of its objects on the server, if that is another one.
    """
    module, _, name = full.rpartition(".")
    what = api()[module][name]
    body: dict[str, Any] = {"__module__": module, "_full": full, "__doc__": what[2]}
    own = next((has for ends, has in OWN_ATTRIBUTES if name.endswith(ends)), ())
    settable = SETTABLE.get(name, frozenset())
    written = {
        member
        for one in base.__mro__
        if issubclass(one, RemoteClass) and one is not RemoteClass
        for member in vars(one)
    }
    for attribute in own:
        if attribute not in written:
            body[attribute] = _reader(attribute, attribute in settable)
    for member, entry in what[3].items():
        if member in written or member in vars(RemoteClass) or member in body:
            continue
        if entry is None:
            body[member] = _reader(member, member in settable)
        elif member in _PLAIN:
            ask, kind = _operator(full, member), _PLAIN[member]
            body[member] = lambda self, ask=ask, kind=kind: kind(ask(self))
        elif member in OBJECT_DUNDERS and member != "__call__":
            body[member] = _operator(full, member)
        elif (entry[0] or "").startswith(_OF_CLASSES):
            body[member] = _class_method(full, member, *entry)
        else:
            body[member] = _method(full, member, *entry)
    if "__eq__" in body:
        body.setdefault("__hash__", None)
    made: Any = type(name, (base,), body)
    CLASSES[full] = made
    REMOTE_CLASSES[type_name or name] = made._revived
    return made


def is_remote(value: Any) -> bool:
    """Whether it lives on the server."""
    return isinstance(value, ndarray | RemoteObject)

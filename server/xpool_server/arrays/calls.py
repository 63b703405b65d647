"""Executes the records about arrays: decode, check, call, name the results."""

from __future__ import annotations

import math
import operator
import warnings
from collections.abc import Callable
from typing import Any, Final

import msgspec
import numpy as np
from xpool_protocol import limits
from xpool_protocol.arrays.api import readable
from xpool_protocol.arrays.described import Description
from xpool_protocol.arrays.numpy_dtypes import describe
from xpool_protocol.arrays.records import (
    ArrayCall,
    ArrayOverStorage,
    ArrayRequest,
    ArrayResult,
    DefineArrayDtype,
    DefineArrayOperation,
    FreeArrays,
    PutArray,
    StorageOverArray,
)
from xpool_protocol.arrays.values import (
    LAYOUT_C,
    LAYOUT_F,
    LAYOUT_OWN,
    ArrayMeta,
    DescribedDType,
    DescribedItems,
    Handle,
    NamedTuple,
    ObjectMeta,
    write_array_value,
)
from xpool_protocol.errors import ArgumentInvalid, OperationUnknown, PeerError
from xpool_protocol.messages import Fault, Reply
from xpool_protocol.records import read_record
from xpool_protocol.values import DType, HostTensor
from xpool_protocol.wire import Reader, Writer

from xpool_server.arrays.described import DtypeTable
from xpool_server.arrays.dtypes import CODE_OF
from xpool_server.arrays.library import ArrayLibrary, fields_of
from xpool_server.arrays.store import ArrayStore
from xpool_server.arrays.strides import bounds, check_strides
from xpool_server.arrays.table import ArrayTable, owner_of
from xpool_server.failures import NOTHING, Answers, Failures
from xpool_server.faults import Poisoned
from xpool_server.storages import Storages, charged_nbytes

VIEWS: Final = frozenset(
    {
        "ndarray.__getitem__",
        "ndarray.reshape",
        "ndarray.transpose",
        "ndarray.swapaxes",
        "ndarray.squeeze",
        "ndarray.view",
        "ndarray.diagonal",
        "ndarray.ravel",
        "cupy.reshape",
        "cupy.transpose",
        "cupy.swapaxes",
        "cupy.moveaxis",
        "cupy.rollaxis",
        "cupy.squeeze",
        "cupy.expand_dims",
        "cupy.broadcast_to",
        "cupy.broadcast_arrays",
        "cupy.ravel",
        "cupy.real",
        "cupy.imag",
        "cupy.diagonal",
        "cupy.atleast_1d",
        "cupy.atleast_2d",
        "cupy.atleast_3d",
        "cupy.flip",
        "cupy.fliplr",
        "cupy.flipud",
        "cupy.rot90",
        "cupy.split",
        "cupy.array_split",
        "cupy.hsplit",
        "cupy.vsplit",
        "cupy.dsplit",
        "xpool.attribute",
    }
)
"""Operations whose results may take no memory of their own."""

MAX_WARNINGS: Final = 32


class ArrayCalls:
    """The session's arrays, and what is done with them."""

    def __init__(
        self,
        storages: Storages,
        failures: Failures,
        open_library: Callable[[], ArrayLibrary],
        make_store: Callable[[type], ArrayStore],
    ) -> None:
        """No arrays yet.

        Args:
            storages: the session's; their ledger is the arrays' too.
            failures: makes and remembers faults.
            open_library: imports the library; called at the first use.
            make_store: where arrays of a type will be kept.
        """
        self.executed_ops = 0
        self._storages = storages
        self._failures = failures
        self._open_library = open_library
        self._make_store = make_store
        self._opened: ArrayLibrary | None = None
        self._arrays: ArrayTable | None = None
        self._names: dict[int, str] = {}
        self._dtypes = DtypeTable()
        self._objects: list[int] = []
        """Numbers of the call's arguments that are no arrays: it may change them."""
        self._named: dict[int, tuple[int, Any]] | None = None
        """While a request is decoded: what its arguments name, and the number, by id.

        Nothing else notes its arguments: an array must not outlive its number."""
        self._own: dict[str, Callable[..., Any]] = {
            "xpool.get": self._get,
            "xpool.describe": self._describe_all,
            "xpool.attribute": self._attribute,
            "xpool.set_attribute": self._set_attribute,
            "xpool.bounds": self._bounds,
            "xpool.object_attribute": self._object_attribute,
            "xpool.equal": lambda a, b: self._compare(operator.eq, a, b),
            "xpool.not_equal": lambda a, b: self._compare(operator.ne, a, b),
            "cupy.lib.stride_tricks.as_strided": self._as_strided,
        }

    @property
    def library(self) -> ArrayLibrary:
        """NumPy or CuPy, imported at its first use."""
        if self._opened is None:
            self._opened = self._open_library()
        return self._opened

    @property
    def arrays(self) -> ArrayTable:
        """The session's arrays."""
        if self._arrays is None:
            library = self.library
            self._arrays = ArrayTable(
                *(self._storages, library.array_type, library.parts_of),
                self._make_store(library.array_type),
            )
        return self._arrays

    # ---- records

    def define(self, record: DefineArrayOperation) -> Answers:
        """Give an operation its number."""
        if record.array_operation != len(self._names):
            raise PeerError(
                f"array operation {record.array_operation} is defined out of turn"
            )
        self._names[record.array_operation] = record.name
        return NOTHING

    def define_dtype(self, record: DefineArrayDtype) -> Answers:
        """Give a described dtype its code."""
        self._dtypes.define(record)
        return NOTHING

    @property
    def is_open(self) -> bool:
        """Whether the library has been imported, and there is a table."""
        return self._arrays is not None

    def is_get(self, number: int) -> bool:
        """Whether an operation's number is that which asks for items."""
        return self._names.get(number) == "xpool.get"

    def known_operation(self, number: int) -> tuple[Callable[..., Any], bool] | None:
        """What an operation of the library's calls, and whether that makes views.

        None: it is unknown, or the project's own.
        """
        name = self._names.get(number)
        if name is None or name in self._own:
            return None
        try:
            return self.library.operation(name), name in VIEWS
        except OperationUnknown:
            return None

    def call(self, record: ArrayCall) -> Answers:
        """Run an operation whose results have names."""
        return self._attempt(record, lambda: self._call(record))

    def finish(self, record: ArrayCall, found: Any, error: Exception | None) -> Answers:
        """The rest of a call with one result at most that has run elsewhere.

        Args:
            record: the call.
            found: what it has returned.
            error: what it has raised instead.
        """

        def run() -> None:
            if error is not None:
                raise error
            self._bind(record.results[0], self.library.as_result(found))

        return self._attempt(record, run)

    def _attempt(self, record: ArrayCall, run: Callable[[], None]) -> Answers:
        """Run a call, or what is left of it; a failure poisons its results."""
        try:
            run()
        except Poisoned as poisoned:
            self._poison(record, poisoned.fault)
        except PeerError:
            raise
        except Exception as error:  # noqa: BLE001  a library may raise anything
            name = self._names.get(record.array_operation, "")
            fault = self._failures.fault(error, name)
            self._poison(record, fault)
            return self._failures.told(fault)
        return NOTHING

    def request(self, record: ArrayRequest) -> Answers:
        """Run an operation and tell what came out."""
        name = self._names.get(record.array_operation, "")
        return self._answered(record, lambda: self._requested(record, name))

    def answer_of(self, data: bytes) -> tuple[int, bytes] | None:
        """Run the request that some records begin with.

        Args:
            data: of a batch, from the request on; it may be cut off anywhere.

        Returns:
            How many bytes the request takes, and the value of its answer. None, and
            nothing has happened: it is cut off, malformed or ``xpool.get``.

        Raises:
            Exception: whatever the operation raises.
        """
        reader = Reader(data)
        try:
            record = read_record(reader)
        except PeerError:
            return None
        if not isinstance(record, ArrayRequest):
            return None
        name = self._names.get(record.array_operation, "")
        if name == "xpool.get":
            return None
        return reader.position, self._requested(record, name)

    def finish_request(
        self, record: ArrayRequest, value: bytes | None, error: Exception | None
    ) -> Answers:
        """The rest of a request that has run elsewhere.

        Args:
            record: the request.
            value: of its answer.
            error: what ``answer_of`` has raised instead.
        """

        def run() -> bytes:
            if error is not None:
                raise error
            assert value is not None
            return value

        return self._answered(record, run)

    def _answered(self, record: ArrayRequest, run: Callable[[], bytes]) -> Answers:
        name = self._names.get(record.array_operation, "")
        try:
            return [Reply(record.request, run())]
        except Poisoned as poisoned:
            return self._failures.refused(record.request, poisoned.fault)
        except PeerError:
            raise
        except Exception as error:  # noqa: BLE001  a library may raise anything
            fault = self._failures.fault(error, name)
            return self._failures.refused(record.request, fault)

    def free(self, record: FreeArrays) -> Answers:
        """Forget numbers."""

        def run() -> None:
            for number in record.numbers:
                self.arrays.free(number)

        return self._failures.attempt(run)

    def put(self, record: PutArray) -> Answers:
        """Make an array of bytes."""

        def run() -> None:
            self.arrays.check_new(record.number)
            self._storages.check_room(charged_nbytes(len(record.data)))
            dtype = self._dtypes.checked(record.dtype, record.sizes, record.data)
            array = self.library.from_bytes(
                dtype, record.sizes, "CF"[record.order], record.data
            )
            self.arrays.add(record.number, array)

        return self._naming(record.number, run)

    def over_storage(self, record: ArrayOverStorage) -> Answers:
        """Make an array over a storage's memory."""
        return self._naming(record.number, lambda: self._lay_over(record))

    def over_of(self, data: bytes) -> int | None:
        """Make the array over a storage that some records begin with.

        Args:
            data: of a batch, from the record on; it may be cut off anywhere.

        Returns:
            How many bytes the record takes. None, and nothing has happened: it is cut
            off or malformed.

        Raises:
            Exception: what ``finish_over`` is to be told.
        """
        reader = Reader(data)
        try:
            record = read_record(reader)
        except PeerError:
            return None
        if not isinstance(record, ArrayOverStorage):
            return None
        self._lay_over(record)
        return reader.position

    def finish_over(self, record: ArrayOverStorage, error: Exception) -> Answers:
        """The rest of an array over a storage that ``over_of`` could not make."""

        def run() -> None:
            raise error

        return self._naming(record.number, run)

    def _lay_over(self, record: ArrayOverStorage) -> None:
        self.arrays.check_new(record.number)
        tensor = self._storages.own_tensor(record.tensor)
        array = self.library.over(tensor)
        if record.is_taken:
            self._storages.free(record.tensor.storage)
        self.arrays.add(record.number, array, is_charged=not record.is_taken)

    def storage_over(self, record: StorageOverArray) -> Answers:
        """Make a storage over an array's memory."""

        def run() -> None:
            array = self.arrays.get(record.number)
            if not isinstance(array, self.library.array_type):
                raise ArgumentInvalid(f"{record.number} is no array")
            self._storages.adopt_shared(
                record.storage, self.library.storage_over(array)
            )

        try:
            run()
        except Poisoned as poisoned:
            self._storages.poison(record.storage, poisoned.fault)
        except PeerError:
            raise
        except Exception as error:  # noqa: BLE001  a library may raise anything
            fault = self._failures.fault(error)
            self._storages.poison(record.storage, fault)
            return self._failures.told(fault)
        return NOTHING

    # ---- for kernels that name arrays

    def address_of(self, number: int) -> int:
        """The device address of an array's first item.

        Raises:
            ArgumentInvalid: the number names something else.
            Poisoned: an earlier failure has poisoned it.
        """
        array = self.arrays.get(number)
        if not isinstance(array, self.library.array_type):
            raise ArgumentInvalid(f"{number} is no array")
        return self.library.address(array)

    def poison_written(self, number: int, fault: Fault) -> None:
        """Poison an array and all in the same memory; nothing if there is none."""
        if number in self.arrays:
            for other in self.arrays.sharing(number):
                self.arrays.poison(other, fault)

    # ---- running

    def _naming(self, number: int, run: Callable[[], None]) -> Answers:
        try:
            run()
        except Poisoned as poisoned:
            self.arrays.poison(number, poisoned.fault)
        except PeerError:
            raise
        except Exception as error:  # noqa: BLE001  a library may raise anything
            fault = self._failures.fault(error)
            self.arrays.poison(number, fault)
            return self._failures.told(fault)
        return NOTHING

    def _operation(self, number: int) -> Callable[..., Any]:
        name = self._names.get(number)
        if name is None:
            raise OperationUnknown(f"array operation {number} was not defined")
        own = self._own.get(name)
        return own if own is not None else self.library.operation(name)

    def _call(self, record: ArrayCall) -> None:
        operation = self._operation(record.array_operation)
        arguments = [self._argument(one) for one in record.arguments]
        keywords = {name: self._argument(one) for name, one in record.keywords.items()}
        results = record.results
        if results:
            self._check_room(record)
        found = operation(*arguments, **keywords)
        self.executed_ops += 1
        self._recharge_objects()
        if len(results) == 1:
            self._bind(results[0], self.library.as_result(found))
        elif results:
            if not isinstance(found, tuple | list) or len(found) != len(results):
                raise ArgumentInvalid(
                    f"predicted {len(results)} results, got something else"
                )
            for result, one in zip(results, found, strict=True):
                self._bind(result, self.library.as_result(one))

    def _recharge_objects(self) -> None:
        if self._objects:
            objects, self._objects = self._objects, []
            for number in objects:
                self.arrays.recharge(number)

    def _check_room(self, record: ArrayCall) -> None:
        needed = 0
        is_view = self._names[record.array_operation] in VIEWS
        for result in record.results:
            self.arrays.check_new(result.number)
            if not is_view:
                itemsize = self._dtypes.dtype(result.dtype).itemsize
                nbytes = math.prod(result.sizes) * itemsize
                needed += charged_nbytes(nbytes)
        if needed:
            self._storages.check_room(needed)

    def _bind(self, result: ArrayResult, array: Any) -> None:
        if not isinstance(array, self.library.array_type):
            raise ArgumentInvalid(f"predicted an array, got a {type(array).__name__}")
        dtype = self._dtypes.dtype(result.dtype)
        if array.shape != result.sizes or array.dtype != dtype:
            raise ArgumentInvalid(
                f"predicted shape {result.sizes} and dtype {dtype},"
                f" got {array.shape} and {array.dtype}"
            )
        self.arrays.add(result.number, array)

    def _poison(self, record: ArrayCall, fault: Fault) -> None:
        for result in record.results:
            self.arrays.poison(result.number, fault)
        if not record.results:
            for number in self._written(record):
                self.arrays.poison(number, fault)

    def _written(self, record: ArrayCall) -> list[int]:
        """Arrays that a call without results writes: outputs, or its first argument."""
        written = record.keywords.get("out", record.arguments[:1])
        handles = written if isinstance(written, tuple | list) else (written,)
        return [
            number
            for one in handles
            if isinstance(one, Handle) and one.number in self.arrays
            for number in self.arrays.sharing(one.number)
        ]

    def _argument(self, value: Any) -> Any:
        kind = type(value)
        if kind is Handle:
            found = self.arrays.get(value.number)
            if self._named is not None:
                self._named[id(found)] = value.number, found
            if not isinstance(found, self.library.array_type):
                self._objects.append(value.number)
            return found
        if kind is tuple:
            return tuple([self._argument(one) for one in value])
        if kind is list:
            return [self._argument(one) for one in value]
        if kind in (HostTensor, DescribedItems):
            dtype = self._dtypes.checked(value.dtype, value.sizes, value.data)
            return self.library.argument(dtype, value.sizes, value.data)
        if kind in (DType, DescribedDType):
            return self._dtypes.dtype(value.code)
        if kind is slice:
            return slice(
                self._argument(value.start),
                self._argument(value.stop),
                self._argument(value.step),
            )
        if kind is dict:
            return {name: self._argument(one) for name, one in value.items()}
        if isinstance(value, msgspec.Struct):
            raise ArgumentInvalid(f"a {kind.__name__} is no argument")
        return value

    # ---- answers

    def _requested(self, record: ArrayRequest, name: str) -> bytes:
        operation = self._operation(record.array_operation)
        named: dict[int, tuple[int, Any]] = {}
        self._named = named
        try:
            arguments = [self._argument(one) for one in record.arguments]
            keywords = {
                key: self._argument(one) for key, one in record.keywords.items()
            }
        finally:
            self._named = None
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = self.library.as_arrays(name, operation(*arguments, **keywords))
        self.executed_ops += 1
        self._recharge_objects()
        describer = _Describer(self, record.first_number, named)
        said = tuple(
            (one.category.__name__, str(one.message)[:1000])
            for one in caught[:MAX_WARNINGS]
        )
        try:
            return _written_answer(name, (describer.describe(found), said))
        except BaseException:
            # The client will not hear of what was named so far.
            describer.forget()
            raise

    # ---- the project's own operations

    def _get(self, array: Any, others: Any = None) -> Any:
        """An array's items, and those of small arrays, by number, that are there."""
        found = self._items(array)
        if others is None:
            return found
        if not isinstance(others, list) or len(others) > limits.MAX_READ_AHEAD:
            raise ArgumentInvalid("too many arrays to be read at once")
        return found, [self._small_items(one) for one in others]

    def _small_items(self, number: Any) -> HostTensor | None:
        """Of an array that may be gone; a failure is told to who asks for it alone."""
        is_number = type(number) is int and 0 <= number <= limits.MAX_STORAGE_ID
        found = self.arrays.find(number) if is_number else None
        if not isinstance(found, self.library.array_type):
            return None
        is_small = found.nbytes <= limits.MAX_READ_AHEAD_NBYTES
        return self._items(found) if is_small else None

    def _items(self, array: Any) -> HostTensor:
        if not isinstance(array, self.library.array_type):
            raise ArgumentInvalid("only an array has items")
        if array.nbytes > limits.MAX_HOST_TENSOR_NBYTES:
            raise ArgumentInvalid("the array is too large to be read at once")
        data = self.library.to_bytes(array)
        code = CODE_OF.get(array.dtype)
        if code is None:  # its bytes: the client knows what they mean
            return HostTensor(CODE_OF[np.dtype(np.uint8)], (len(data),), data)
        return HostTensor(code, array.shape, data)

    def _compare(self, compare: Callable[[Any, Any], Any], a: Any, b: Any) -> Any:
        """Compare items of dtypes with fields, for which no ufunc has a loop."""
        found = compare(a, b)
        if not isinstance(found, self.library.array_type | np.bool):
            raise TypeError(f"cannot compare {a.dtype} with {b!r}")
        return found

    def _describe_all(self, arrays: Any) -> Any:
        return tuple(arrays)

    def _attribute(self, array: Any, name: str) -> Any:
        if name not in ("real", "imag", "base", "T", "mT", "flat"):
            raise AttributeError(name)
        return getattr(array, name)

    def _object_attribute(self, found: Any, name: str) -> Any:
        if isinstance(found, self.library.array_type):
            raise AttributeError(name)
        if name not in readable(self.library.type_name(found)):
            raise AttributeError(name)
        return self.library.attribute(found, name)

    def _set_attribute(self, array: Any, name: str, value: Any) -> None:
        if not isinstance(array, self.library.array_type):
            self.library.set_attribute(array, name, value)
            return
        if name not in ("real", "imag", "shape", "strides"):
            raise AttributeError(name)
        if name == "strides":
            extent = self.library.extent(array)
            check_strides(extent, array.itemsize, array.shape, value)
        setattr(array, name, value)

    def _bounds(self, array: Any, others: Any) -> Any:
        """Where items of arrays begin and end in an array's memory, if they are there.

        Raises:
            ArgumentInvalid: something is no array.
        """
        kind = self.library.array_type
        if not isinstance(others, tuple) or not all(
            isinstance(one, kind) for one in (array, *others)
        ):
            raise ArgumentInvalid("only arrays have bounds")
        owner = owner_of(array)
        return tuple(
            [
                bounds(self.library.extent(one)[0], one)
                if owner_of(one) is owner
                else None
                for one in others
            ]
        )

    def _as_strided(self, x: Any, shape: Any = None, strides: Any = None) -> Any:
        if not isinstance(x, self.library.array_type):
            raise ArgumentInvalid("only an array has strides")
        shape = x.shape if shape is None else tuple(map(int, shape))
        strides = x.strides if strides is None else tuple(map(int, strides))
        check_strides(self.library.extent(x), x.itemsize, shape, strides)
        run = self.library.operation("cupy.lib.stride_tricks.as_strided")
        return run(x, shape, strides)


def _written_answer(name: str, value: Any) -> bytes:
    writer = Writer()
    try:
        write_array_value(writer, value)
    except (TypeError, ValueError) as error:
        raise ArgumentInvalid(
            f"what {name} returned has no place on the wire: {error}"
        ) from error
    if len(writer.buffer) > limits.MAX_BODY_NBYTES // 2:
        raise ArgumentInvalid(f"what {name} returned is too large for an answer")
    return bytes(writer.buffer)


def _described(dtype: np.dtype[Any]) -> Description:
    """What a dtype with fields, or of plain bytes, looks like.

    Raises:
        ValueError: clients have no arrays of it.
    """
    try:
        if dtype.kind == "V" and dtype.itemsize:
            return describe(dtype)
    except ValueError:
        pass  # it holds objects
    raise ValueError(f"Unsupported dtype {dtype}: its arrays stay on the server")


def _dtype_told(found: Any) -> DType | None:
    """A dtype, or the type of its scalars, as it is told; None of everything else.

    Raises:
        ArgumentInvalid: it has no code.
    """
    if isinstance(found, type) and issubclass(found, np.generic):
        found = np.dtype(found)
    if not isinstance(found, np.dtype):
        return None
    code = CODE_OF.get(found)
    if code is None:
        raise ArgumentInvalid(f"the dtype {found} stays on the server")
    return DType(code)


class _Describer:
    """Turns a result into what is sent: plain values, and numbers for the rest."""

    def __init__(
        self, calls: ArrayCalls, first_number: int, named: dict[int, tuple[int, Any]]
    ) -> None:
        self._arrays, self._library, self._named = calls.arrays, calls.library, named
        self._first = self._next = first_number
        self._end = first_number + limits.MAX_RESERVED_IDS

    def forget(self) -> None:
        """Free all that was given a number."""
        for number in range(self._first, self._next):
            if number in self._arrays:
                self._arrays.free(number)

    def describe(self, found: Any) -> Any:
        if found is None or isinstance(found, HostTensor):
            return found
        if type(found) in (bool, int, float, complex, str, bytes):
            return found
        found = self._library.as_result(found)
        if isinstance(found, self._library.array_type):
            return self._array(found)
        dtype = _dtype_told(found)
        if dtype is not None:
            return dtype
        if isinstance(found, tuple) and hasattr(found, "_fields"):
            items = tuple([self.describe(one) for one in found])
            return NamedTuple(type(found).__name__, tuple(found._fields), items)
        if isinstance(found, tuple):
            return tuple([self.describe(one) for one in found])
        if isinstance(found, list):
            return [self.describe(one) for one in found]
        if isinstance(found, dict):
            return {str(key): self.describe(one) for key, one in found.items()}
        if isinstance(found, slice):
            return found
        fields = fields_of(found)
        if fields is not None:
            items = tuple([self.describe(one) for one in fields.values()])
            return NamedTuple(type(found).__name__, tuple(fields), items)
        return ObjectMeta(self._number(found), self._library.type_name(found))

    def _number(self, found: Any) -> int:
        known = self._named.get(id(found))
        if known is not None:
            return known[0]
        if self._next >= self._end:
            raise ArgumentInvalid("an operation returned too many arrays")
        number = self._next
        self._next += 1
        self._arrays.add(number, found)
        return number

    def _array(self, array: Any) -> ArrayMeta:
        code = CODE_OF.get(array.dtype)
        dtype = _described(array.dtype) if code is None else code
        flags = array.flags
        layout = (
            LAYOUT_C * bool(flags.c_contiguous)
            | LAYOUT_F * bool(flags.f_contiguous)
            | LAYOUT_OWN * bool(flags.owndata)
        )
        if (
            max(array.shape, default=0) > limits.MAX_EXTENT
            or array.size > limits.MAX_ITEMS
        ):
            raise ArgumentInvalid(f"an array of shape {array.shape} is too large")
        number = self._number(array)
        base = -1 if layout & LAYOUT_OWN else self._base(array)
        return ArrayMeta(number, dtype, layout, array.shape, array.strides, base)

    def _base(self, array: Any) -> int:
        owner = owner_of(array)
        for number, found in self._named.values():
            if isinstance(found, type(array)) and owner_of(found) is owner:
                return number
        return -1

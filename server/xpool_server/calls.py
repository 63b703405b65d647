"""Calls of operations: the hot path of a session.

Rule 1: nothing runs before the quota has room for its predicted results.
Rule 2: what failed or was not run leaves its results, and what it would have
written, poisoned with the fault that was first in the chain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from xpool_protocol.errors import OperationUnknown, PeerError, PoolError
from xpool_protocol.graphs import tensors_in
from xpool_protocol.messages import Fault, Reply
from xpool_protocol.records import Call, DefineOperation, RequestCall
from xpool_protocol.values import Tensor, Value, write_value
from xpool_protocol.wire import Writer

from xpool_server.arbiter.costs import Costs, keys
from xpool_server.devices.base import Backend
from xpool_server.failures import NOTHING, Answers, Failures
from xpool_server.faults import Poisoned
from xpool_server.operations import Arguments, Bound, Operation, resolve
from xpool_server.results import Binder, Description, leaves_of, room_for
from xpool_server.schema import Converters
from xpool_server.storages import Storages


class Calls:
    """The operations a session has defined, and what runs them."""

    def __init__(
        self,
        backend: Backend,
        storages: Storages,
        converters: Converters,
        failures: Failures,
    ) -> None:
        self.executed_ops = 0
        self.costs: Costs | None = None
        """Told what is submitted, where the device runs behind."""
        self.binder = Binder(storages, backend)
        self._device = backend.device
        self._storages = storages
        self._converters = converters
        self._failures = failures
        self._operations: dict[int, Operation] = {}
        self._refusals: dict[int, PoolError] = {}
        self._definitions: dict[int, DefineOperation] = {}

    def define(self, record: DefineOperation) -> Answers:
        """Take note of a name; an unknown or denied one fails when it is called."""
        number = record.operation
        self._definitions[number] = record
        self._operations.pop(number, None)
        try:
            self._operations[number] = resolve(
                record.name, record.argument_names, self._converters
            )
        except PoolError as error:
            self._refusals[number] = error
        return NOTHING

    def call(self, record: Call) -> Answers:
        """Run an operation whose results the client has predicted."""
        return self.attempt(record, self._run)

    def attempt(self, record: Call, run: Callable[[Call], None]) -> Answers:
        """Run a call, or what is left of it; a failure poisons its results."""
        try:
            run(record)
        except Poisoned as poisoned:
            self._poison(record, record.outputs, poisoned.fault)
        except PeerError:
            raise
        except Exception as error:  # noqa: BLE001  a kernel may raise anything
            fault = self._fault(error, record.operation)
            self._poison(record, record.outputs, fault)
            return self._failures.told(fault)
        return NOTHING

    def _run(self, record: Call) -> None:
        outputs = record.outputs
        operation = self._operations.get(record.operation)
        if operation is None:
            raise self._undefined(record.operation)
        function, positional, keywords = operation.bind(record.arguments)
        self._storages.check_room(room_for(outputs, self._storages))
        if self.costs is not None:
            self.costs.submit(*keys(record.operation, shapes_of(record.arguments)))
        result = function(*positional, **keywords)
        self.executed_ops += 1
        if operation.reshapes:
            self._account_written(operation, record.arguments)
        self.binder.bind(outputs, leaves_of(result, operation.returns))

    def bind_results(
        self, record: Call, leaves: Sequence[torch.Tensor | None], bound: int
    ) -> None:
        """What is left to do for a call that has run elsewhere.

        Args:
            record: the call.
            leaves: tensors of its results in schema order.
            bound: how many outputs have their handles already.

        Raises:
            ArgumentInvalid: a prediction of number, sizes or dtype was wrong.
            QuotaExceeded: there is no room.
        """
        operation = self._operations[record.operation]
        if operation.reshapes:
            self._account_written(operation, record.arguments)
        self.binder.bind(record.outputs[bound:], leaves[bound:])

    def operation(self, number: int) -> Operation | None:
        """An operation that may be called."""
        return self._operations.get(number)

    def request_call(self, record: RequestCall) -> Answers:
        """Run an operation whose results only the device knows, and tell them."""
        try:
            return [Reply(record.request, encoded(self._requested(record)))]
        except Poisoned as poisoned:
            fault = poisoned.fault
        except PeerError:
            raise
        except Exception as error:  # noqa: BLE001  a kernel may raise anything
            fault = self._fault(error, record.operation)
        # An unknown operation has not run, and its caller is told so at once: what it
        # would have written is as it was.
        if record.operation in self._operations:
            self._poison(record, (), fault)
        return self._failures.refused(record.request, fault)

    def _requested(self, record: RequestCall) -> Value:
        operation = self._operations.get(record.operation)
        if operation is None:
            raise self._undefined(record.operation)
        bound = operation.bind(record.arguments)
        function, positional, keywords = bound
        result = function(*positional, **keywords)
        self.executed_ops += 1
        self._account_written(operation, record.arguments)
        results = (result,) if len(operation.returns) == 1 else result or ()
        description = Description(self._storages, self._device, record.first_storage)
        return description.describe(results, list(_written_now(operation, bound)))

    def resolved(self, number: int, converters: Converters) -> Operation | PoolError:
        """An operation for a graph, or why there is none."""
        known = self._definitions.get(number)
        if known is None:
            return self._undefined(number)
        try:
            return resolve(known.name, known.argument_names, converters)
        except PoolError as error:
            return error

    def name_of(self, number: int) -> str:
        """An operation's name; empty if it was never defined."""
        known = self._definitions.get(number)
        return known.name if known is not None else ""

    def _undefined(self, number: int) -> PoolError:
        known = self._refusals.get(number)
        return known or OperationUnknown(f"operation number {number} was never defined")

    def _fault(self, error: Exception, operation: int) -> Fault:
        return self._failures.fault(error, self.name_of(operation))

    def _account_written(self, operation: Operation, arguments: Arguments) -> None:
        """Charge what an operation has resized."""
        for tensor in operation.tensors_written(arguments):
            entry = self._storages.entry(tensor.storage)
            if entry.storage.nbytes() != entry.nbytes:
                self._storages.resized(entry)

    def _poison(
        self,
        record: Call | RequestCall,
        outputs: Sequence[Tensor | None],
        fault: Fault,
    ) -> None:
        """Poison the results of a call and what it writes.

        Nobody knows what an unknown operation writes. One without new results can
        only have been called for what it writes, so all its tensors are poisoned.
        """
        for output in outputs:
            if output is not None:
                self._storages.poison(output.storage, fault)
        operation = self._operations.get(record.operation)
        touched: Iterable[Tensor] = ()
        if operation is not None:
            touched = operation.tensors_written(record.arguments)
        elif not any(output is not None for output in outputs):
            touched = tensors_in(value for _, value in record.arguments)
        for tensor in touched:
            if self._storages.is_live(tensor.storage):
                self._storages.poison(tensor.storage, fault)


def encoded(value: Value) -> bytes:
    """One value, as a Reply carries it."""
    writer = Writer()
    write_value(writer, value)
    return bytes(writer.buffer)


def _written_now(operation: Operation, bound: Bound) -> Iterator[torch.Tensor | None]:
    """What a call has written, tensor by tensor in schema order."""
    _, positional, keywords = bound
    for parameter in sorted(operation.written, key=lambda one: one.order):
        argument: Any = keywords.get(parameter.name)
        if parameter.order < len(positional):
            argument = positional[parameter.order]
        if isinstance(argument, list):
            yield from argument
        else:
            yield argument


def shapes_of(arguments: Iterable[tuple[int, Value]]) -> Iterator[tuple[int, ...]]:
    """Of the tensors among a call's arguments, and in lists of them."""
    for _, value in arguments:
        for one in value if isinstance(value, list) else (value,):
            if isinstance(one, Tensor):
                yield one.sizes

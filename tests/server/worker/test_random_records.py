"""Whatever a client sends: faults, never an exception, and an honest ledger."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from support.executor_desk import Desk
from support.random_records import LIVE, OPERATIONS, QUOTA_NBYTES, ROOM_NBYTES, records
from xpool_protocol.messages import Failure
from xpool_protocol.records import Allocate, DefineOperation, Free, Record, Write


@settings(max_examples=300)
@given(st.lists(records, min_size=5, max_size=25))
def test_any_records_leave_faults_and_an_honest_ledger(batch: list[Record]) -> None:
    desk = Desk(QUOTA_NBYTES)
    for number, (name, names) in enumerate(OPERATIONS):
        desk.run(DefineOperation(number, name, names))
    for storage in LIVE:
        data = bytes(ROOM_NBYTES)
        desk.run(Allocate(storage, ROOM_NBYTES), Write(storage, 0, len(data), 0, data))
    before = desk.executor.operation_count
    for count, record in enumerate(batch):
        # ``run`` compares the ledger with the table after every record.
        for answer in desk.run(record, payloads=[b"1234", b"56"]):
            request = getattr(record, "request", 0)
            assert answer.request == request
            if isinstance(answer, Failure):
                assert answer.fault.operation <= before + count
        assert desk.storages.allocated_nbytes <= QUOTA_NBYTES
    # Whatever happened, the session still works.
    desk.run(*(Free(one) for one in range(5000) if one in desk.storages))
    assert desk.storages.allocated_nbytes == 0
    assert not desk.run(Allocate(77, QUOTA_NBYTES))

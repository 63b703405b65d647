"""Plans whose runs C++ expands; definitions and refusals are Python's."""

from __future__ import annotations

from typing import Any

from xpool_protocol.errors import PeerError
from xpool_protocol.plan_records import DefinePlan, FreePlan, RunPlan

from xpool_server.failures import Answers
from xpool_server.native.library import NativeSession
from xpool_server.plans import Plans, check_expanded


class NativePlans(Plans):
    """The plans of a session. What their variables are now only C++ knows."""

    def __init__(self, native: NativeSession, *parts: Any) -> None:
        super().__init__(*parts)
        self._native = native

    def define(self, record: DefinePlan) -> Answers:
        """Keep a plan."""
        answers = super().define(record)
        self._native.define_plan(self.plan(record.plan))
        return answers

    def free(self, record: FreePlan) -> Answers:
        """Forget a plan."""
        answers = super().free(record)
        self._native.free_plan(record.plan)
        return answers

    def refusal(self, run: RunPlan) -> PeerError:
        """Why C++ has not taken a run."""
        try:
            plan = self.plan(run.plan)
            plan.check(run)
            check_expanded(self._native.expanded_nbytes())
        except PeerError as error:
            return error
        return plan.other_records()

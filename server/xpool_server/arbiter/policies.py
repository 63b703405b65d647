"""The policies by name."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from xpool_server.arbiter.fair_share import FairShare
from xpool_server.arbiter.fifo import Fifo
from xpool_server.arbiter.null import Null
from xpool_server.arbiter.policy import Policy
from xpool_server.arbiter.priority import ByPriority


class PolicyName(StrEnum):
    """What ``--arbiter`` takes."""

    PRIORITY = "priority"
    FAIR_SHARE = "fair_share"
    FIFO = "fifo"
    NULL = "null"


POLICIES: Final[dict[PolicyName, type[Policy]]] = {
    PolicyName(policy.name): policy for policy in (ByPriority, FairShare, Fifo, Null)
}

BY_NUMBER: Final[dict[int, type[Policy]]] = {
    policy.number: policy for policy in POLICIES.values()
}

"""How far the pool's servers are from here: the round trip of opening a connection."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as OutOfTime
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

from xpool_protocol.control import registry_pb2 as pb

TIMEOUT_S: Final = 1.0
"""Of one connection; who is further away is not near."""

ROUNDS: Final = 3
"""Of each server; the shortest counts, the others have met something on the way."""

MOST: Final = 256
"""Servers that are measured; of a larger pool ``--require`` names a part."""

AT_ONCE: Final = 32


def rtt_us(address: str) -> int | None:
    """The round trip to a server's front door; None: it could not be reached."""
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if parts.scheme != "tcp" or not host or not port:
        return None  # a socket of one host: nobody needs to measure that
    best: float | None = None
    for _ in range(ROUNDS):
        began_s = time.perf_counter()
        try:
            socket.create_connection((host, port), TIMEOUT_S).close()
        except OSError:
            return None
        elapsed_s = time.perf_counter() - began_s
        best = elapsed_s if best is None else min(best, elapsed_s)
    assert best is not None
    return max(1, round(best * 1e6))


def distances_to(nodes: Sequence[pb.NodeInfo]) -> list[pb.Distance]:
    """Round trips to those that live and can be reached, in a few seconds at most."""
    alive = [node for node in nodes if node.alive][:MOST]
    if not alive:
        return []
    found = []
    pool = ThreadPoolExecutor(min(AT_ONCE, len(alive)))
    try:
        addresses = [node.address for node in alive]
        answers = pool.map(rtt_us, addresses, timeout=3 * TIMEOUT_S)
        with suppress(OutOfTime):  # the rest is too far
            for node, us in zip(alive, answers, strict=True):
                if us is not None:
                    found.append(pb.Distance(node_name=node.node_name, rtt_us=us))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return found

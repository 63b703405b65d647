"""Pools and tenants that the parts of ``shares`` have in common.

Starting a tenant takes seconds, so those that several parts need are started once and
stand still meanwhile: a signal tells their programs so, and what they had asked for is
served to its end.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from xpool_registry.slices_cli import wait_until_followed

from xpool_perf.children import Children
from xpool_perf.pool import own_environment, start_pool
from xpool_perf.scenario import Say, Settings
from xpool_perf.shares_tenants import Bench, Tenant, step_aside, thread_ns

PROMISED: Final = (10, 20, 30, 40)
SMALL: Final = ("--memory", "64MiB")
SETTLE_S: Final = 2.0
"""From the moment that tenants go on until anything is counted."""
QUIET_S: Final = 0.25
"""A worker that has used no processor time for so long has nothing left to do."""
DRAIN_TIMEOUT_S: Final = 30.0


class Stage:
    """One pool for each policy, started when it is first asked for."""

    def __init__(
        self,
        settings: Settings,
        say: Say,
        children: Children,
        said: dict[str, list[tuple[float, float]]],
        folder: Path,
    ) -> None:
        self._settings = settings
        self._say = say
        self._children = children
        self._said = said
        self._folder = folder
        self._benches: dict[str, Bench] = {}
        self._fours: dict[str, list[Tenant]] = {}
        self._stopped: set[int] = set()
        self._affinity = os.sched_getaffinity(0)

    def bench(self, policy: str = "priority") -> Bench:
        """A pool on loopback whose one device takes turns by that policy.

        It keeps no warm workers: one that starts would import its framework on a
        processor that something measured needs.
        """
        if policy not in self._benches:
            self._say(f"starting a pool with the policy {policy}")
            is_cpu = self._settings.device == "cpu"
            env = own_environment(self._settings.threads)
            own = self._folder / policy
            own.mkdir()
            os.sched_setaffinity(0, self._affinity)
            pool = start_pool(
                self._children,
                own,
                {**env, "XPOOL_ARBITER": policy},
                spares=0,
                devices="cpu,cores=1" if is_cpu else "cuda",
            )
            if is_cpu:
                step_aside(1)
            self._benches[policy] = Bench(
                self._children, pool, env, self._said, is_cpu=is_cpu
            )
        return self._benches[policy]

    def four(self, policy: str = "priority") -> list[Tenant]:
        """Tenants of 10, 20, 30 and 40 % that stand still."""
        if policy not in self._fours:
            bench = self.bench(policy)
            self._say("starting four tenants that are always busy")
            self._fours[policy] = tenants = bench.start_all(
                [
                    (("saturate", str(share)), (*SMALL, "--slice", f"{share}%"))
                    for share in PROMISED
                ]
            )
            self.pause(*tenants)
        return self._fours[policy]

    def end_four(self, policy: str = "priority") -> None:
        """End them: their shares are needed for others."""
        self.end(*self._fours.pop(policy, ()))

    def end(self, *tenants: Tenant) -> None:
        """End tenants, whether they stand still or not."""
        for bench in self._benches.values():
            bench.end(*(one for one in tenants if one.bench is bench))

    @contextmanager
    def running(self, *tenants: Tenant) -> Iterator[None]:
        """Let tenants work for as long as the block lasts."""
        for tenant in tenants:
            tenant.check()
            self._go_on(tenant)
        tenants[0].bench.wait(SETTLE_S)
        try:
            yield
        finally:
            self.pause(*tenants)

    def pause(self, *tenants: Tenant) -> None:
        """Let programs stand still, and wait until their workers have nothing to do."""
        for tenant in tenants:
            tenant.check()
            if tenant.program not in self._stopped:
                os.kill(tenant.program, signal.SIGUSR1)
                self._stopped.add(tenant.program)
        before, until_s = None, time.monotonic() + DRAIN_TIMEOUT_S
        while time.monotonic() < until_s:
            now = [thread_ns(tenant.worker) for tenant in tenants]
            if now == before:
                return
            before = now
            tenants[0].bench.wait(QUIET_S)

    def _go_on(self, tenant: Tenant) -> None:
        if tenant.program in self._stopped:
            self._stopped.discard(tenant.program)
            if tenant.child.status is None:
                os.kill(tenant.program, signal.SIGUSR2)

    def last_words(self) -> list[str]:
        """Of the pools, for whoever wants to know why a part has failed."""
        return [
            line
            for bench in self._benches.values()
            for line in list(bench.pool.child.lines)[-8:]
        ]

    def resize(self, tenant: Tenant, **slice_: int | str) -> float:
        """Change a running job's slice; the milliseconds until its server followed.

        Raises:
            PoolError: it could not.
        """
        with tenant.bench.client() as client:
            began_s = time.monotonic()
            reply = client.resize(tenant.lease_id, **slice_)  # type: ignore[arg-type]
            wait_until_followed(client, tenant.lease_id, reply.number)
            return 1000 * (time.monotonic() - began_s)

    def reshape(self, tenants: Sequence[Tenant], shares: Sequence[int]) -> None:
        """Give tenants other shares: first less, then more, so that all fit."""
        pairs = sorted(
            zip(tenants, shares, strict=True),
            key=lambda pair: pair[1] - pair[0].share,
        )
        for tenant, share in pairs:
            if share != tenant.share:
                self.resize(tenant, share_percent=share)
                tenant.share = share

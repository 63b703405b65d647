"""``xpool admin``: explain, whatif, cordon, drain, forget, evict, events."""

from __future__ import annotations

import itertools
import json
import textwrap
import time
from typing import TYPE_CHECKING, Annotated

import typer
from xpool_protocol.errors import UsageError

from xpool_registry import completing
from xpool_registry.admin_cli import DoneOption, YesOption, connected, done, sure
from xpool_registry.cli import (
    DEFAULT_REGISTRY,
    JsonOption,
    RegistryOption,
    admin_app,
    one_sentence,
)
from xpool_registry.event_lines import event_text

if TYPE_CHECKING:
    from xpool_protocol.control import admin_pb2 as pb
    from xpool_protocol.control import registry_pb2 as wire
    from xpool_protocol.control.admin_rpc import AdminClient

NodeArgument = Annotated[
    str,
    typer.Argument(
        metavar="NODE",
        help="As xpool admin nodes names it.",
        autocompletion=completing.nodes,
    ),
]
ReasonOption = Annotated[str, typer.Option(help="For people who ask why.")]
WIDTH = 80

LOOK_S = 0.5
"""So often ``events --follow`` and ``drain`` look again."""


@admin_app.command()
def explain(
    name: Annotated[
        str,
        typer.Argument(
            metavar="LEASE|REQUEST",
            help="Its id, from a listing.",
            autocompletion=completing.leases_and_requests,
        ),
    ],
    registry_address: RegistryOption = DEFAULT_REGISTRY,
    as_json: JsonOption = False,
) -> None:
    """Say why a lease is where it is, or why a request waits and what would help."""
    with connected(registry_address) as client:
        found = client.explain(name)
    typer.echo(explanation_text(found, as_json=as_json))


@admin_app.command()
def whatif(
    registry_address: RegistryOption = DEFAULT_REGISTRY,
    slice_: Annotated[
        str,
        typer.Option(
            "--slice", envvar="XPOOL_SLICE", metavar="PERCENT", help="Of each device."
        ),
    ] = "100%",
    at_least: Annotated[
        str | None,
        typer.Option(
            envvar="XPOOL_AT_LEAST", metavar="PERCENT", help="So little will do."
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(envvar="XPOOL_MEMORY", metavar="SIZE", help="Of each device."),
    ] = None,
    devices: Annotated[
        int, typer.Option(envvar="XPOOL_DEVICES", metavar="N", help="How many.")
    ] = 1,
    same_server: Annotated[
        bool, typer.Option("--same-server", envvar="XPOOL_SAME_SERVER")
    ] = False,
    close_by: Annotated[
        str,
        typer.Option(
            envvar="XPOOL_CLOSE_BY",
            metavar="LABEL",
            help="All on servers with one value of it.",
        ),
    ] = "",
    tenant: Annotated[
        str, typer.Option(envvar="XPOOL_TENANT", help="For whom.")
    ] = "whatif",
    priority: Annotated[
        str, typer.Option(envvar="XPOOL_PRIORITY", metavar="high|normal|low")
    ] = "normal",
    place: Annotated[
        str, typer.Option(envvar="XPOOL_PLACE", metavar="auto|pack|spread")
    ] = "auto",
    kind: Annotated[str, typer.Option(help="Of devices: cuda, npu, cpu.")] = "",
    model: Annotated[str, typer.Option(help="Part of the device's name.")] = "",
    require: Annotated[
        str,
        typer.Option(
            envvar="XPOOL_REQUIRE",
            metavar="KEY=VALUE,...",
            help="Which devices will do: kind, model, arch, memory, server, apart,"
            " label.NAME.",
        ),
    ] = "",
    near: Annotated[
        bool,
        typer.Option(
            "--near",
            envvar="XPOOL_NEAR",
            help="The nearest to here of what has room.",
        ),
    ] = False,
    max_rtt: Annotated[
        str,
        typer.Option(
            envvar="XPOOL_MAX_RTT",
            metavar="DURATION",
            help="Only servers so near to here: 2ms.",
        ),
    ] = "",
    mode: Annotated[
        str, typer.Option(envvar="XPOOL_MODE", metavar="elastic|capped")
    ] = "elastic",
    as_json: JsonOption = False,
) -> None:
    """Say what a request would get, without asking for it.

    The options and variables are those of ``xpool run``. Round trips are measured from
    here, so for ``--near`` and ``--max-rtt`` call it where the job would start.
    """
    with connected(registry_address) as client:
        from xpool_protocol.control import registry_pb2
        from xpool_protocol.control.wanted import wanted_from
        from xpool_protocol.quantities import nbytes_from_text, share_from_text
        from xpool_protocol.wishes import require_from_text, rtt_us_from_text

        wanted = {"kind": kind, "model": model} | require_from_text(require)
        request = registry_pb2.AcquireGroupRequest(
            slice=registry_pb2.AcquireRequest(
                tenant=tenant,
                share_percent=share_from_text(slice_),
                memory_nbytes=nbytes_from_text(memory) if memory else 0,
                min_share_percent=share_from_text(at_least) if at_least else 0,
                mode=mode,
                priority=priority,
            ),
            device_count=_count(devices),
            policy=place,
            same_node=same_server,
            close_by=close_by,
            apart=wanted.get("apart", ""),
            near=near,
            max_rtt_us=rtt_us_from_text(max_rtt) if max_rtt else 0,
            distances=_distances(registry_address) if near or max_rtt else (),
            wanted=wanted_from(wanted),
        )
        found = client.what_if(request)
    typer.echo(explanation_text(found, as_json=as_json))


def _distances(registry_address: str) -> list[wire.Distance]:
    """Round trips from here to the pool's servers."""
    from xpool_protocol.control.distance import distances_to
    from xpool_protocol.control.rpc import RegistryClient

    with RegistryClient(registry_address) as client:
        return distances_to(client.list_nodes())


@admin_app.command()
def cordon(
    node: NodeArgument,
    registry_address: RegistryOption = DEFAULT_REGISTRY,
    reason: ReasonOption = "",
    as_json: DoneOption = False,
) -> None:
    """Give a node no new leases; those that it has go on."""
    with connected(registry_address) as client:
        count = client.cordon(node, reason)
    done(
        f"{node} gets no new leases; it still has {count}",
        as_json=as_json,
        node_name=node,
        lease_count=count,
    )


@admin_app.command()
def uncordon(
    node: NodeArgument,
    registry_address: RegistryOption = DEFAULT_REGISTRY,
    as_json: DoneOption = False,
) -> None:
    """Give a node leases again; who was asked to leave for a drain may stay."""
    with connected(registry_address) as client:
        was_cordoned = client.uncordon(node)
    word = "takes" if was_cordoned else "took"
    done(
        f"{node} {word} new leases",
        as_json=as_json,
        node_name=node,
        was_cordoned=was_cordoned,
    )


@admin_app.command()
def drain(
    node: NodeArgument,
    registry_address: RegistryOption = DEFAULT_REGISTRY,
    deadline: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help="Leases are told, and end after so long; otherwise they are waited"
            " for.",
        ),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Return when the node has no lease left.")
    ] = False,
    reason: ReasonOption = "",
    yes: YesOption = False,
    as_json: DoneOption = False,
) -> None:
    """Empty a node: no new leases, and those it has end by the deadline."""
    from xpool_registry.settings import ms_from_text

    with one_sentence():
        deadline_ms = ms_from_text(deadline) if deadline else 0
    if deadline_ms:
        sure(f"End the leases of {node} in {deadline}?", yes=yes)
    with connected(registry_address) as client:
        count = client.cordon(node, reason, drain=True, deadline_ms=deadline_ms)
        if not (wait and as_json):
            done(
                f"{node} gets no new leases; it still has {count}",
                as_json=as_json,
                node_name=node,
                lease_count=count,
            )
        if wait:
            _wait_until_empty(client, node)
            done(f"{node} is empty", as_json=as_json, node_name=node, lease_count=0)


@admin_app.command()
def forget(
    node: NodeArgument,
    registry_address: RegistryOption = DEFAULT_REGISTRY,
    reason: ReasonOption = "",
    as_json: DoneOption = False,
) -> None:
    """List a silent node no more that is gone for good; it may join again."""
    with connected(registry_address) as client:
        client.forget(node, reason)
    done(f"{node} is forgotten", as_json=as_json, node_name=node)


@admin_app.command()
def evict(
    lease: Annotated[
        str,
        typer.Argument(
            metavar="LEASE", help="Its id.", autocompletion=completing.leases
        ),
    ],
    registry_address: RegistryOption = DEFAULT_REGISTRY,
    grace: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="Tell the job, and wait so long."),
    ] = None,
    reason: ReasonOption = "",
    yes: YesOption = False,
    as_json: DoneOption = False,
) -> None:
    """Take a lease from its holder: the job on it ends."""
    from xpool_registry.settings import ms_from_text

    with one_sentence():
        grace_ms = ms_from_text(grace) if grace else 0
    sure(f"End the job on lease {lease}?", yes=yes)
    with connected(registry_address) as client:
        client.evict(lease, reason, grace_ms)
    when = f"in {grace}" if grace else "now"
    done(
        f"lease {lease} ends {when}", as_json=as_json, lease_id=lease, grace_ms=grace_ms
    )


@admin_app.command()
def events(
    registry_address: RegistryOption = DEFAULT_REGISTRY,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")
    ] = False,
    last: Annotated[int, typer.Option(metavar="N", help="How many old ones.")] = 20,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line.")
    ] = False,
) -> None:
    """Show what has happened in the pool, oldest first."""
    with connected(registry_address) as client:
        found = client.list_events()
        shown = found[-last:] if last > 0 else []
        after = found[-1].sequence if found else 0
        while True:
            for event in shown:
                typer.echo(event_text(event, as_json=as_json))
            if not follow:
                return
            time.sleep(LOOK_S)
            shown = client.list_events(after)
            after = shown[-1].sequence if shown else after


def explanation_text(found: pb.Explanation, *, as_json: bool) -> str:
    """For people, or as JSON."""
    starts_at_s = found.starts_at_s or None
    if as_json:
        figures = {
            "headline": found.headline,
            "facts": list(found.facts),
            "starts_at_s": starts_at_s,
            "devices": [
                {"device": one.device, "ruled_out": one.ruled_out or None}
                for one in found.verdicts
            ],
            "changes": list(found.changes),
        }
        return json.dumps(figures, indent=2)
    lines = [found.headline, *(f"  {fact}" for fact in found.facts)]
    if starts_at_s:
        clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(starts_at_s))
        lines.append(f"  expected to start: {clock}")
    if found.verdicts:
        lines.append("devices, as they are now:")
        lines += [
            f"  {one.device}: {one.ruled_out or 'it fits'}" for one in found.verdicts
        ]
    if found.changes:
        lines.append("what would have to change:")
        lines += [f"  {change}" for change in found.changes]
    wrapped = (
        textwrap.wrap(line, WIDTH, subsequent_indent="    ", break_on_hyphens=False)
        for line in lines
    )
    return "\n".join(itertools.chain.from_iterable(wrapped))


def _count(devices: int) -> int:
    if not 0 <= devices < 1 << 31:
        raise UsageError(f"{devices} devices make no sense")
    return devices


def _wait_until_empty(client: AdminClient, node: str) -> None:
    while any(info.lease.node_name == node for info in client.list_leases()):
        time.sleep(LOOK_S)

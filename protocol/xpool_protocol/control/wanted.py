"""What a job says of the devices that will do, as it is asked."""

from __future__ import annotations

from collections.abc import Mapping

from xpool_protocol.control import registry_pb2 as pb

_LABEL = "label."


def wanted_from(require: Mapping[str, str]) -> pb.Wanted:
    """Of ``wishes.require_from_text``; ``apart`` has a field of its own elsewhere."""
    return pb.Wanted(
        kind=require.get("kind", ""),
        model=require.get("model", ""),
        architecture=require.get("arch", ""),
        min_memory_nbytes=int(require.get("memory", "0")),
        node_name=require.get("server", ""),
        labels={
            key.removeprefix(_LABEL): value
            for key, value in require.items()
            if key.startswith(_LABEL)
        },
    )

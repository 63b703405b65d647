"""One message of each kind of the control plane, with every field set.

Made once from the schema and kept: a field that is added later is not in them, and what
is in them must be read as it is for as long as version 1 lives.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import FieldDescriptor as Field
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from xpool_protocol.control import admin_pb2, registry_pb2

FOLDER = Path(__file__).parent / "control"


def kinds() -> Iterator[type[Message]]:
    """Every message of both files, by name."""
    for module in (registry_pb2, admin_pb2):
        for _, descriptor in sorted(module.DESCRIPTOR.message_types_by_name.items()):
            yield GetMessageClass(descriptor)


def name_of(kind: type[Message]) -> str:
    return str(kind.DESCRIPTOR.full_name).removeprefix("xpool.")


def filled(kind: type[Message]) -> Message:
    """With values that follow from the fields' numbers, so that none is another's."""
    message = kind()
    for field in kind.DESCRIPTOR.fields:
        _fill(message, field)
    return message


def _fill(message: Any, field: Any) -> None:
    is_map = (
        field.message_type is not None and field.message_type.GetOptions().map_entry
    )
    if is_map:
        value = field.message_type.fields_by_name["value"]
        getattr(message, field.name)[f"key-{field.number}"] = _value(
            value, field.number
        )
    elif field.type == Field.TYPE_MESSAGE:
        inner = filled(GetMessageClass(field.message_type))
        if field.is_repeated:
            getattr(message, field.name).extend([inner, inner])
        else:
            getattr(message, field.name).CopyFrom(inner)
    elif field.is_repeated:
        getattr(message, field.name).append(_value(field, field.number))
    else:
        setattr(message, field.name, _value(field, field.number))


def _value(field: Any, number: int) -> Any:
    match field.type:
        case Field.TYPE_STRING:
            return f"{field.name}-{number}"
        case Field.TYPE_BYTES:
            return bytes([number, 0, 255])
        case Field.TYPE_BOOL:
            return True
        case Field.TYPE_DOUBLE:
            return number + 0.25
        case _:
            return 1000 * number + 1


def make() -> None:
    """Write those that are missing; what is there is never written again."""
    FOLDER.mkdir(exist_ok=True)
    for kind in kinds():
        path = FOLDER / f"{name_of(kind)}.hex"
        if not path.exists():
            path.write_text(
                filled(kind).SerializeToString(deterministic=True).hex() + "\n"
            )


if __name__ == "__main__":
    make()

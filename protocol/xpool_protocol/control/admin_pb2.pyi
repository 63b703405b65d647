# Written by python -m xpool_protocol.control.generate; change the .proto file instead.
# ruff: noqa
# fmt: off
# mypy: ignore-errors
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ListQueueRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Waiting(_message.Message):
    __slots__ = ("request_id", "place", "tenant", "client", "priority", "share_percent", "memory_nbytes", "device_count", "limit_ms", "waited_ms", "reason", "starts_at_s")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    SHARE_PERCENT_FIELD_NUMBER: _ClassVar[int]
    MEMORY_NBYTES_FIELD_NUMBER: _ClassVar[int]
    DEVICE_COUNT_FIELD_NUMBER: _ClassVar[int]
    LIMIT_MS_FIELD_NUMBER: _ClassVar[int]
    WAITED_MS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    STARTS_AT_S_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    place: int
    tenant: str
    client: str
    priority: str
    share_percent: int
    memory_nbytes: int
    device_count: int
    limit_ms: int
    waited_ms: int
    reason: str
    starts_at_s: float
    def __init__(self, request_id: _Optional[str] = ..., place: _Optional[int] = ..., tenant: _Optional[str] = ..., client: _Optional[str] = ..., priority: _Optional[str] = ..., share_percent: _Optional[int] = ..., memory_nbytes: _Optional[int] = ..., device_count: _Optional[int] = ..., limit_ms: _Optional[int] = ..., waited_ms: _Optional[int] = ..., reason: _Optional[str] = ..., starts_at_s: _Optional[float] = ...) -> None: ...

class ListQueueReply(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[Waiting]
    def __init__(self, requests: _Optional[_Iterable[_Union[Waiting, _Mapping]]] = ...) -> None: ...

class Tenant(_message.Message):
    __slots__ = ("name", "parent", "weight", "quota_percent", "limit_percent", "limit_nbytes", "preemptions_per_hour")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PARENT_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    QUOTA_PERCENT_FIELD_NUMBER: _ClassVar[int]
    LIMIT_PERCENT_FIELD_NUMBER: _ClassVar[int]
    LIMIT_NBYTES_FIELD_NUMBER: _ClassVar[int]
    PREEMPTIONS_PER_HOUR_FIELD_NUMBER: _ClassVar[int]
    name: str
    parent: str
    weight: float
    quota_percent: int
    limit_percent: int
    limit_nbytes: int
    preemptions_per_hour: int
    def __init__(self, name: _Optional[str] = ..., parent: _Optional[str] = ..., weight: _Optional[float] = ..., quota_percent: _Optional[int] = ..., limit_percent: _Optional[int] = ..., limit_nbytes: _Optional[int] = ..., preemptions_per_hour: _Optional[int] = ...) -> None: ...

class ListTenantsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class TenantInfo(_message.Message):
    __slots__ = ("tenant", "is_known", "held_percent", "held_nbytes", "use_percent", "right_percent", "lease_count", "waiting_count")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    IS_KNOWN_FIELD_NUMBER: _ClassVar[int]
    HELD_PERCENT_FIELD_NUMBER: _ClassVar[int]
    HELD_NBYTES_FIELD_NUMBER: _ClassVar[int]
    USE_PERCENT_FIELD_NUMBER: _ClassVar[int]
    RIGHT_PERCENT_FIELD_NUMBER: _ClassVar[int]
    LEASE_COUNT_FIELD_NUMBER: _ClassVar[int]
    WAITING_COUNT_FIELD_NUMBER: _ClassVar[int]
    tenant: Tenant
    is_known: bool
    held_percent: float
    held_nbytes: float
    use_percent: float
    right_percent: float
    lease_count: int
    waiting_count: int
    def __init__(self, tenant: _Optional[_Union[Tenant, _Mapping]] = ..., is_known: _Optional[bool] = ..., held_percent: _Optional[float] = ..., held_nbytes: _Optional[float] = ..., use_percent: _Optional[float] = ..., right_percent: _Optional[float] = ..., lease_count: _Optional[int] = ..., waiting_count: _Optional[int] = ...) -> None: ...

class ListTenantsReply(_message.Message):
    __slots__ = ("tenants",)
    TENANTS_FIELD_NUMBER: _ClassVar[int]
    tenants: _containers.RepeatedCompositeFieldContainer[TenantInfo]
    def __init__(self, tenants: _Optional[_Iterable[_Union[TenantInfo, _Mapping]]] = ...) -> None: ...

class SetTenantReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RemoveTenantRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class RemoveTenantReply(_message.Message):
    __slots__ = ("was_known",)
    WAS_KNOWN_FIELD_NUMBER: _ClassVar[int]
    was_known: bool
    def __init__(self, was_known: _Optional[bool] = ...) -> None: ...

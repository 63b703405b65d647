# Written by python -m xpool_protocol.control.generate; change the .proto file instead.
# ruff: noqa
# fmt: off
# mypy: ignore-errors
from xpool_protocol.control import registry_pb2 as _registry_pb2
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

class CordonRequest(_message.Message):
    __slots__ = ("node_name", "reason", "drain", "deadline_ms")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    reason: str
    drain: bool
    deadline_ms: int
    def __init__(self, node_name: _Optional[str] = ..., reason: _Optional[str] = ..., drain: _Optional[bool] = ..., deadline_ms: _Optional[int] = ...) -> None: ...

class UncordonRequest(_message.Message):
    __slots__ = ("node_name",)
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    def __init__(self, node_name: _Optional[str] = ...) -> None: ...

class CordonReply(_message.Message):
    __slots__ = ("changed", "lease_count")
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    LEASE_COUNT_FIELD_NUMBER: _ClassVar[int]
    changed: bool
    lease_count: int
    def __init__(self, changed: _Optional[bool] = ..., lease_count: _Optional[int] = ...) -> None: ...

class ForgetRequest(_message.Message):
    __slots__ = ("node_name", "reason")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    reason: str
    def __init__(self, node_name: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class ForgetReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class EvictRequest(_message.Message):
    __slots__ = ("lease_id", "reason", "grace_ms")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    GRACE_MS_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    reason: str
    grace_ms: int
    def __init__(self, lease_id: _Optional[str] = ..., reason: _Optional[str] = ..., grace_ms: _Optional[int] = ...) -> None: ...

class EvictReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class Verdict(_message.Message):
    __slots__ = ("device", "ruled_out")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    RULED_OUT_FIELD_NUMBER: _ClassVar[int]
    device: str
    ruled_out: str
    def __init__(self, device: _Optional[str] = ..., ruled_out: _Optional[str] = ...) -> None: ...

class Explanation(_message.Message):
    __slots__ = ("headline", "facts", "verdicts", "changes", "starts_at_s")
    HEADLINE_FIELD_NUMBER: _ClassVar[int]
    FACTS_FIELD_NUMBER: _ClassVar[int]
    VERDICTS_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    STARTS_AT_S_FIELD_NUMBER: _ClassVar[int]
    headline: str
    facts: _containers.RepeatedScalarFieldContainer[str]
    verdicts: _containers.RepeatedCompositeFieldContainer[Verdict]
    changes: _containers.RepeatedScalarFieldContainer[str]
    starts_at_s: float
    def __init__(self, headline: _Optional[str] = ..., facts: _Optional[_Iterable[str]] = ..., verdicts: _Optional[_Iterable[_Union[Verdict, _Mapping]]] = ..., changes: _Optional[_Iterable[str]] = ..., starts_at_s: _Optional[float] = ...) -> None: ...

class ListEventsRequest(_message.Message):
    __slots__ = ("after", "limit")
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    after: int
    limit: int
    def __init__(self, after: _Optional[int] = ..., limit: _Optional[int] = ...) -> None: ...

class EventInfo(_message.Message):
    __slots__ = ("sequence", "json")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    json: str
    def __init__(self, sequence: _Optional[int] = ..., json: _Optional[str] = ...) -> None: ...

class ListEventsReply(_message.Message):
    __slots__ = ("events",)
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[EventInfo]
    def __init__(self, events: _Optional[_Iterable[_Union[EventInfo, _Mapping]]] = ...) -> None: ...

class ListUsageRequest(_message.Message):
    __slots__ = ("since_s", "until_s", "by")
    SINCE_S_FIELD_NUMBER: _ClassVar[int]
    UNTIL_S_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    since_s: int
    until_s: int
    by: str
    def __init__(self, since_s: _Optional[int] = ..., until_s: _Optional[int] = ..., by: _Optional[str] = ...) -> None: ...

class Usage(_message.Message):
    __slots__ = ("name", "tenant", "device_s", "booked_s", "waiting_s", "byte_s", "executed_ops", "received_nbytes", "sent_nbytes", "seconds", "lease_count")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    DEVICE_S_FIELD_NUMBER: _ClassVar[int]
    BOOKED_S_FIELD_NUMBER: _ClassVar[int]
    WAITING_S_FIELD_NUMBER: _ClassVar[int]
    BYTE_S_FIELD_NUMBER: _ClassVar[int]
    EXECUTED_OPS_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_NBYTES_FIELD_NUMBER: _ClassVar[int]
    SENT_NBYTES_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    LEASE_COUNT_FIELD_NUMBER: _ClassVar[int]
    name: str
    tenant: str
    device_s: float
    booked_s: float
    waiting_s: float
    byte_s: float
    executed_ops: int
    received_nbytes: int
    sent_nbytes: int
    seconds: int
    lease_count: int
    def __init__(self, name: _Optional[str] = ..., tenant: _Optional[str] = ..., device_s: _Optional[float] = ..., booked_s: _Optional[float] = ..., waiting_s: _Optional[float] = ..., byte_s: _Optional[float] = ..., executed_ops: _Optional[int] = ..., received_nbytes: _Optional[int] = ..., sent_nbytes: _Optional[int] = ..., seconds: _Optional[int] = ..., lease_count: _Optional[int] = ...) -> None: ...

class ListUsageReply(_message.Message):
    __slots__ = ("usage",)
    USAGE_FIELD_NUMBER: _ClassVar[int]
    usage: _containers.RepeatedCompositeFieldContainer[Usage]
    def __init__(self, usage: _Optional[_Iterable[_Union[Usage, _Mapping]]] = ...) -> None: ...

class CreateTokenRequest(_message.Message):
    __slots__ = ("role", "name", "expires_in_ms", "comment")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_IN_MS_FIELD_NUMBER: _ClassVar[int]
    COMMENT_FIELD_NUMBER: _ClassVar[int]
    role: str
    name: str
    expires_in_ms: int
    comment: str
    def __init__(self, role: _Optional[str] = ..., name: _Optional[str] = ..., expires_in_ms: _Optional[int] = ..., comment: _Optional[str] = ...) -> None: ...

class CreateTokenReply(_message.Message):
    __slots__ = ("token", "token_id", "expires_at_s")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_S_FIELD_NUMBER: _ClassVar[int]
    token: str
    token_id: str
    expires_at_s: float
    def __init__(self, token: _Optional[str] = ..., token_id: _Optional[str] = ..., expires_at_s: _Optional[float] = ...) -> None: ...

class ListTokensRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class TokenInfo(_message.Message):
    __slots__ = ("token_id", "role", "name", "comment", "created_at_s", "expires_at_s")
    TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    COMMENT_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_S_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_S_FIELD_NUMBER: _ClassVar[int]
    token_id: str
    role: str
    name: str
    comment: str
    created_at_s: float
    expires_at_s: float
    def __init__(self, token_id: _Optional[str] = ..., role: _Optional[str] = ..., name: _Optional[str] = ..., comment: _Optional[str] = ..., created_at_s: _Optional[float] = ..., expires_at_s: _Optional[float] = ...) -> None: ...

class ListTokensReply(_message.Message):
    __slots__ = ("tokens",)
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    tokens: _containers.RepeatedCompositeFieldContainer[TokenInfo]
    def __init__(self, tokens: _Optional[_Iterable[_Union[TokenInfo, _Mapping]]] = ...) -> None: ...

class RevokeTokenRequest(_message.Message):
    __slots__ = ("token_id",)
    TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    token_id: str
    def __init__(self, token_id: _Optional[str] = ...) -> None: ...

class RevokeTokenReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

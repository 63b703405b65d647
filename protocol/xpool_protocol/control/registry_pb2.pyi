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

class Device(_message.Message):
    __slots__ = ("index", "kind", "name", "memory_nbytes", "architecture")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    MEMORY_NBYTES_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    index: int
    kind: str
    name: str
    memory_nbytes: int
    architecture: str
    def __init__(self, index: _Optional[int] = ..., kind: _Optional[str] = ..., name: _Optional[str] = ..., memory_nbytes: _Optional[int] = ..., architecture: _Optional[str] = ...) -> None: ...

class JoinRequest(_message.Message):
    __slots__ = ("node_name", "boot_id", "address", "devices", "version", "labels")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    boot_id: str
    address: str
    devices: _containers.RepeatedCompositeFieldContainer[Device]
    version: str
    labels: _containers.ScalarMap[str, str]
    def __init__(self, node_name: _Optional[str] = ..., boot_id: _Optional[str] = ..., address: _Optional[str] = ..., devices: _Optional[_Iterable[_Union[Device, _Mapping]]] = ..., version: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ...) -> None: ...

class JoinReply(_message.Message):
    __slots__ = ("public_key", "heartbeat_interval_ms", "registry_id", "door_key")
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_INTERVAL_MS_FIELD_NUMBER: _ClassVar[int]
    REGISTRY_ID_FIELD_NUMBER: _ClassVar[int]
    DOOR_KEY_FIELD_NUMBER: _ClassVar[int]
    public_key: bytes
    heartbeat_interval_ms: int
    registry_id: str
    door_key: bytes
    def __init__(self, public_key: _Optional[bytes] = ..., heartbeat_interval_ms: _Optional[int] = ..., registry_id: _Optional[str] = ..., door_key: _Optional[bytes] = ...) -> None: ...

class DeviceLoad(_message.Message):
    __slots__ = ("index", "used_nbytes", "busy_percent", "session_count")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    USED_NBYTES_FIELD_NUMBER: _ClassVar[int]
    BUSY_PERCENT_FIELD_NUMBER: _ClassVar[int]
    SESSION_COUNT_FIELD_NUMBER: _ClassVar[int]
    index: int
    used_nbytes: int
    busy_percent: float
    session_count: int
    def __init__(self, index: _Optional[int] = ..., used_nbytes: _Optional[int] = ..., busy_percent: _Optional[float] = ..., session_count: _Optional[int] = ...) -> None: ...

class SessionReport(_message.Message):
    __slots__ = ("lease_id", "epoch", "state", "executed_ops", "allocated_nbytes", "received_nbytes", "share_percent", "memory_nbytes", "mode", "priority", "refusal", "device_ns", "waiting_ns", "sent_nbytes", "longest_hold_ns", "got_percent", "overhead_nbytes", "usage", "slice_number", "held_ns")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    EXECUTED_OPS_FIELD_NUMBER: _ClassVar[int]
    ALLOCATED_NBYTES_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_NBYTES_FIELD_NUMBER: _ClassVar[int]
    SHARE_PERCENT_FIELD_NUMBER: _ClassVar[int]
    MEMORY_NBYTES_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    DEVICE_NS_FIELD_NUMBER: _ClassVar[int]
    WAITING_NS_FIELD_NUMBER: _ClassVar[int]
    SENT_NBYTES_FIELD_NUMBER: _ClassVar[int]
    LONGEST_HOLD_NS_FIELD_NUMBER: _ClassVar[int]
    GOT_PERCENT_FIELD_NUMBER: _ClassVar[int]
    OVERHEAD_NBYTES_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    SLICE_NUMBER_FIELD_NUMBER: _ClassVar[int]
    HELD_NS_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    epoch: int
    state: str
    executed_ops: int
    allocated_nbytes: int
    received_nbytes: int
    share_percent: int
    memory_nbytes: int
    mode: str
    priority: str
    refusal: str
    device_ns: int
    waiting_ns: int
    sent_nbytes: int
    longest_hold_ns: int
    got_percent: float
    overhead_nbytes: int
    usage: _containers.RepeatedCompositeFieldContainer[UsageSecond]
    slice_number: int
    held_ns: int
    def __init__(self, lease_id: _Optional[str] = ..., epoch: _Optional[int] = ..., state: _Optional[str] = ..., executed_ops: _Optional[int] = ..., allocated_nbytes: _Optional[int] = ..., received_nbytes: _Optional[int] = ..., share_percent: _Optional[int] = ..., memory_nbytes: _Optional[int] = ..., mode: _Optional[str] = ..., priority: _Optional[str] = ..., refusal: _Optional[str] = ..., device_ns: _Optional[int] = ..., waiting_ns: _Optional[int] = ..., sent_nbytes: _Optional[int] = ..., longest_hold_ns: _Optional[int] = ..., got_percent: _Optional[float] = ..., overhead_nbytes: _Optional[int] = ..., usage: _Optional[_Iterable[_Union[UsageSecond, _Mapping]]] = ..., slice_number: _Optional[int] = ..., held_ns: _Optional[int] = ...) -> None: ...

class UsageSecond(_message.Message):
    __slots__ = ("at_s", "device_ns", "waiting_ns", "executed_ops", "received_nbytes", "sent_nbytes", "allocated_nbytes")
    AT_S_FIELD_NUMBER: _ClassVar[int]
    DEVICE_NS_FIELD_NUMBER: _ClassVar[int]
    WAITING_NS_FIELD_NUMBER: _ClassVar[int]
    EXECUTED_OPS_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_NBYTES_FIELD_NUMBER: _ClassVar[int]
    SENT_NBYTES_FIELD_NUMBER: _ClassVar[int]
    ALLOCATED_NBYTES_FIELD_NUMBER: _ClassVar[int]
    at_s: int
    device_ns: int
    waiting_ns: int
    executed_ops: int
    received_nbytes: int
    sent_nbytes: int
    allocated_nbytes: int
    def __init__(self, at_s: _Optional[int] = ..., device_ns: _Optional[int] = ..., waiting_ns: _Optional[int] = ..., executed_ops: _Optional[int] = ..., received_nbytes: _Optional[int] = ..., sent_nbytes: _Optional[int] = ..., allocated_nbytes: _Optional[int] = ...) -> None: ...

class EndedLease(_message.Message):
    __slots__ = ("lease_id", "epoch", "reason", "last")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    epoch: int
    reason: str
    last: SessionReport
    def __init__(self, lease_id: _Optional[str] = ..., epoch: _Optional[int] = ..., reason: _Optional[str] = ..., last: _Optional[_Union[SessionReport, _Mapping]] = ...) -> None: ...

class HeartbeatRequest(_message.Message):
    __slots__ = ("node_name", "boot_id", "loads", "sessions", "ended")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    LOADS_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    boot_id: str
    loads: _containers.RepeatedCompositeFieldContainer[DeviceLoad]
    sessions: _containers.RepeatedCompositeFieldContainer[SessionReport]
    ended: _containers.RepeatedCompositeFieldContainer[EndedLease]
    def __init__(self, node_name: _Optional[str] = ..., boot_id: _Optional[str] = ..., loads: _Optional[_Iterable[_Union[DeviceLoad, _Mapping]]] = ..., sessions: _Optional[_Iterable[_Union[SessionReport, _Mapping]]] = ..., ended: _Optional[_Iterable[_Union[EndedLease, _Mapping]]] = ...) -> None: ...

class LeaseToEnd(_message.Message):
    __slots__ = ("lease_id", "reason")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    reason: str
    def __init__(self, lease_id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class HeartbeatReply(_message.Message):
    __slots__ = ("end_leases", "must_rejoin", "slices", "next_heartbeat_ms", "usage_stored_s")
    class UsageStoredSEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    END_LEASES_FIELD_NUMBER: _ClassVar[int]
    MUST_REJOIN_FIELD_NUMBER: _ClassVar[int]
    SLICES_FIELD_NUMBER: _ClassVar[int]
    NEXT_HEARTBEAT_MS_FIELD_NUMBER: _ClassVar[int]
    USAGE_STORED_S_FIELD_NUMBER: _ClassVar[int]
    end_leases: _containers.RepeatedCompositeFieldContainer[LeaseToEnd]
    must_rejoin: bool
    slices: _containers.RepeatedCompositeFieldContainer[SliceOfLease]
    next_heartbeat_ms: int
    usage_stored_s: _containers.ScalarMap[str, int]
    def __init__(self, end_leases: _Optional[_Iterable[_Union[LeaseToEnd, _Mapping]]] = ..., must_rejoin: _Optional[bool] = ..., slices: _Optional[_Iterable[_Union[SliceOfLease, _Mapping]]] = ..., next_heartbeat_ms: _Optional[int] = ..., usage_stored_s: _Optional[_Mapping[str, int]] = ...) -> None: ...

class SliceOfLease(_message.Message):
    __slots__ = ("lease_id", "epoch", "share_percent", "memory_nbytes", "mode", "priority", "number")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SHARE_PERCENT_FIELD_NUMBER: _ClassVar[int]
    MEMORY_NBYTES_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    epoch: int
    share_percent: int
    memory_nbytes: int
    mode: str
    priority: str
    number: int
    def __init__(self, lease_id: _Optional[str] = ..., epoch: _Optional[int] = ..., share_percent: _Optional[int] = ..., memory_nbytes: _Optional[int] = ..., mode: _Optional[str] = ..., priority: _Optional[str] = ..., number: _Optional[int] = ...) -> None: ...

class AcquireRequest(_message.Message):
    __slots__ = ("tenant", "share_percent", "memory_nbytes", "ttl_ms", "mode", "client", "priority", "min_share_percent")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    SHARE_PERCENT_FIELD_NUMBER: _ClassVar[int]
    MEMORY_NBYTES_FIELD_NUMBER: _ClassVar[int]
    TTL_MS_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    MIN_SHARE_PERCENT_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    share_percent: int
    memory_nbytes: int
    ttl_ms: int
    mode: str
    client: str
    priority: str
    min_share_percent: int
    def __init__(self, tenant: _Optional[str] = ..., share_percent: _Optional[int] = ..., memory_nbytes: _Optional[int] = ..., ttl_ms: _Optional[int] = ..., mode: _Optional[str] = ..., client: _Optional[str] = ..., priority: _Optional[str] = ..., min_share_percent: _Optional[int] = ...) -> None: ...

class Lease(_message.Message):
    __slots__ = ("lease_id", "epoch", "token", "node_name", "address", "device_index", "device_kind", "device_name", "share_percent", "memory_nbytes", "mode", "ttl_ms", "expires_in_ms", "group_id", "priority", "limit_ms", "notice", "leaves_in_ms")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    DEVICE_INDEX_FIELD_NUMBER: _ClassVar[int]
    DEVICE_KIND_FIELD_NUMBER: _ClassVar[int]
    DEVICE_NAME_FIELD_NUMBER: _ClassVar[int]
    SHARE_PERCENT_FIELD_NUMBER: _ClassVar[int]
    MEMORY_NBYTES_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    TTL_MS_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_IN_MS_FIELD_NUMBER: _ClassVar[int]
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    LIMIT_MS_FIELD_NUMBER: _ClassVar[int]
    NOTICE_FIELD_NUMBER: _ClassVar[int]
    LEAVES_IN_MS_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    epoch: int
    token: str
    node_name: str
    address: str
    device_index: int
    device_kind: str
    device_name: str
    share_percent: int
    memory_nbytes: int
    mode: str
    ttl_ms: int
    expires_in_ms: int
    group_id: str
    priority: str
    limit_ms: int
    notice: str
    leaves_in_ms: int
    def __init__(self, lease_id: _Optional[str] = ..., epoch: _Optional[int] = ..., token: _Optional[str] = ..., node_name: _Optional[str] = ..., address: _Optional[str] = ..., device_index: _Optional[int] = ..., device_kind: _Optional[str] = ..., device_name: _Optional[str] = ..., share_percent: _Optional[int] = ..., memory_nbytes: _Optional[int] = ..., mode: _Optional[str] = ..., ttl_ms: _Optional[int] = ..., expires_in_ms: _Optional[int] = ..., group_id: _Optional[str] = ..., priority: _Optional[str] = ..., limit_ms: _Optional[int] = ..., notice: _Optional[str] = ..., leaves_in_ms: _Optional[int] = ...) -> None: ...

class AcquireGroupRequest(_message.Message):
    __slots__ = ("slice", "device_count", "ticket", "wait_ms", "limit_ms", "policy", "same_node", "wanted", "apart", "distances", "max_rtt_us", "near", "close_by")
    SLICE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_COUNT_FIELD_NUMBER: _ClassVar[int]
    TICKET_FIELD_NUMBER: _ClassVar[int]
    WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    LIMIT_MS_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    SAME_NODE_FIELD_NUMBER: _ClassVar[int]
    WANTED_FIELD_NUMBER: _ClassVar[int]
    APART_FIELD_NUMBER: _ClassVar[int]
    DISTANCES_FIELD_NUMBER: _ClassVar[int]
    MAX_RTT_US_FIELD_NUMBER: _ClassVar[int]
    NEAR_FIELD_NUMBER: _ClassVar[int]
    CLOSE_BY_FIELD_NUMBER: _ClassVar[int]
    slice: AcquireRequest
    device_count: int
    ticket: str
    wait_ms: int
    limit_ms: int
    policy: str
    same_node: bool
    wanted: Wanted
    apart: str
    distances: _containers.RepeatedCompositeFieldContainer[Distance]
    max_rtt_us: int
    near: bool
    close_by: str
    def __init__(self, slice: _Optional[_Union[AcquireRequest, _Mapping]] = ..., device_count: _Optional[int] = ..., ticket: _Optional[str] = ..., wait_ms: _Optional[int] = ..., limit_ms: _Optional[int] = ..., policy: _Optional[str] = ..., same_node: _Optional[bool] = ..., wanted: _Optional[_Union[Wanted, _Mapping]] = ..., apart: _Optional[str] = ..., distances: _Optional[_Iterable[_Union[Distance, _Mapping]]] = ..., max_rtt_us: _Optional[int] = ..., near: _Optional[bool] = ..., close_by: _Optional[str] = ...) -> None: ...

class Distance(_message.Message):
    __slots__ = ("node_name", "rtt_us")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    RTT_US_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    rtt_us: int
    def __init__(self, node_name: _Optional[str] = ..., rtt_us: _Optional[int] = ...) -> None: ...

class Wanted(_message.Message):
    __slots__ = ("kind", "model", "architecture", "min_memory_nbytes", "labels", "node_name")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    KIND_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    MIN_MEMORY_NBYTES_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    kind: str
    model: str
    architecture: str
    min_memory_nbytes: int
    labels: _containers.ScalarMap[str, str]
    node_name: str
    def __init__(self, kind: _Optional[str] = ..., model: _Optional[str] = ..., architecture: _Optional[str] = ..., min_memory_nbytes: _Optional[int] = ..., labels: _Optional[_Mapping[str, str]] = ..., node_name: _Optional[str] = ...) -> None: ...

class QueuePlace(_message.Message):
    __slots__ = ("request_id", "place", "waiting_count", "reason", "starts_at_s", "ask_again_ms", "waited_ms")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    WAITING_COUNT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    STARTS_AT_S_FIELD_NUMBER: _ClassVar[int]
    ASK_AGAIN_MS_FIELD_NUMBER: _ClassVar[int]
    WAITED_MS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    place: int
    waiting_count: int
    reason: str
    starts_at_s: float
    ask_again_ms: int
    waited_ms: int
    def __init__(self, request_id: _Optional[str] = ..., place: _Optional[int] = ..., waiting_count: _Optional[int] = ..., reason: _Optional[str] = ..., starts_at_s: _Optional[float] = ..., ask_again_ms: _Optional[int] = ..., waited_ms: _Optional[int] = ...) -> None: ...

class CancelRequest(_message.Message):
    __slots__ = ("ticket",)
    TICKET_FIELD_NUMBER: _ClassVar[int]
    ticket: str
    def __init__(self, ticket: _Optional[str] = ...) -> None: ...

class CancelReply(_message.Message):
    __slots__ = ("was_live",)
    WAS_LIVE_FIELD_NUMBER: _ClassVar[int]
    was_live: bool
    def __init__(self, was_live: _Optional[bool] = ...) -> None: ...

class LeaseGroup(_message.Message):
    __slots__ = ("leases", "queue")
    LEASES_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    leases: _containers.RepeatedCompositeFieldContainer[Lease]
    queue: QueuePlace
    def __init__(self, leases: _Optional[_Iterable[_Union[Lease, _Mapping]]] = ..., queue: _Optional[_Union[QueuePlace, _Mapping]] = ...) -> None: ...

class RenewRequest(_message.Message):
    __slots__ = ("lease_id", "epoch")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    epoch: int
    def __init__(self, lease_id: _Optional[str] = ..., epoch: _Optional[int] = ...) -> None: ...

class ReleaseRequest(_message.Message):
    __slots__ = ("lease_id", "epoch", "reason")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    epoch: int
    reason: str
    def __init__(self, lease_id: _Optional[str] = ..., epoch: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class ReleaseReply(_message.Message):
    __slots__ = ("was_live",)
    WAS_LIVE_FIELD_NUMBER: _ClassVar[int]
    was_live: bool
    def __init__(self, was_live: _Optional[bool] = ...) -> None: ...

class ListNodesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class NodeInfo(_message.Message):
    __slots__ = ("node_name", "boot_id", "address", "version", "alive", "heard_ms_ago", "device_count", "lease_count", "closed")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ALIVE_FIELD_NUMBER: _ClassVar[int]
    HEARD_MS_AGO_FIELD_NUMBER: _ClassVar[int]
    DEVICE_COUNT_FIELD_NUMBER: _ClassVar[int]
    LEASE_COUNT_FIELD_NUMBER: _ClassVar[int]
    CLOSED_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    boot_id: str
    address: str
    version: str
    alive: bool
    heard_ms_ago: int
    device_count: int
    lease_count: int
    closed: str
    def __init__(self, node_name: _Optional[str] = ..., boot_id: _Optional[str] = ..., address: _Optional[str] = ..., version: _Optional[str] = ..., alive: _Optional[bool] = ..., heard_ms_ago: _Optional[int] = ..., device_count: _Optional[int] = ..., lease_count: _Optional[int] = ..., closed: _Optional[str] = ...) -> None: ...

class ListNodesReply(_message.Message):
    __slots__ = ("nodes",)
    NODES_FIELD_NUMBER: _ClassVar[int]
    nodes: _containers.RepeatedCompositeFieldContainer[NodeInfo]
    def __init__(self, nodes: _Optional[_Iterable[_Union[NodeInfo, _Mapping]]] = ...) -> None: ...

class ListDevicesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DeviceInfo(_message.Message):
    __slots__ = ("node_name", "device", "alive", "free_share_percent", "free_memory_nbytes", "lease_count", "load")
    NODE_NAME_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    ALIVE_FIELD_NUMBER: _ClassVar[int]
    FREE_SHARE_PERCENT_FIELD_NUMBER: _ClassVar[int]
    FREE_MEMORY_NBYTES_FIELD_NUMBER: _ClassVar[int]
    LEASE_COUNT_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    node_name: str
    device: Device
    alive: bool
    free_share_percent: int
    free_memory_nbytes: int
    lease_count: int
    load: DeviceLoad
    def __init__(self, node_name: _Optional[str] = ..., device: _Optional[_Union[Device, _Mapping]] = ..., alive: _Optional[bool] = ..., free_share_percent: _Optional[int] = ..., free_memory_nbytes: _Optional[int] = ..., lease_count: _Optional[int] = ..., load: _Optional[_Union[DeviceLoad, _Mapping]] = ...) -> None: ...

class ListDevicesReply(_message.Message):
    __slots__ = ("devices",)
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    devices: _containers.RepeatedCompositeFieldContainer[DeviceInfo]
    def __init__(self, devices: _Optional[_Iterable[_Union[DeviceInfo, _Mapping]]] = ...) -> None: ...

class ListLeasesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class LeaseInfo(_message.Message):
    __slots__ = ("lease", "tenant", "client", "granted_at_s", "session")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    GRANTED_AT_S_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    lease: Lease
    tenant: str
    client: str
    granted_at_s: float
    session: SessionReport
    def __init__(self, lease: _Optional[_Union[Lease, _Mapping]] = ..., tenant: _Optional[str] = ..., client: _Optional[str] = ..., granted_at_s: _Optional[float] = ..., session: _Optional[_Union[SessionReport, _Mapping]] = ...) -> None: ...

class ListLeasesReply(_message.Message):
    __slots__ = ("leases",)
    LEASES_FIELD_NUMBER: _ClassVar[int]
    leases: _containers.RepeatedCompositeFieldContainer[LeaseInfo]
    def __init__(self, leases: _Optional[_Iterable[_Union[LeaseInfo, _Mapping]]] = ...) -> None: ...

class ResizeRequest(_message.Message):
    __slots__ = ("lease_id", "share_percent", "memory_nbytes", "mode", "priority")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    SHARE_PERCENT_FIELD_NUMBER: _ClassVar[int]
    MEMORY_NBYTES_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    share_percent: int
    memory_nbytes: int
    mode: str
    priority: str
    def __init__(self, lease_id: _Optional[str] = ..., share_percent: _Optional[int] = ..., memory_nbytes: _Optional[int] = ..., mode: _Optional[str] = ..., priority: _Optional[str] = ...) -> None: ...

class ResizeReply(_message.Message):
    __slots__ = ("lease", "number")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    lease: Lease
    number: int
    def __init__(self, lease: _Optional[_Union[Lease, _Mapping]] = ..., number: _Optional[int] = ...) -> None: ...

"""What has happened: facts in the past tense, the only way the state changes.

``RegistryEvent``s are appended to the store before anybody is told, and replayed
after a restart. What is true for seconds alone stands in ``observations.py``.

Times are wall-clock seconds since 1970 and for people; nothing is decided by them.
What holds only numbers and text is nothing for the garbage collector (``gc=False``):
a look at all of ten thousand leases is a pause for everybody.

A new kind of event, or a field without a default, needs a new
``store.SCHEMA_VERSION``: an older registry must not guess.
"""

from __future__ import annotations

import msgspec

from xpool_registry.demand import NO_CONSTRAINTS, Constraints


class Device(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One device as its node offered it."""

    index: int
    kind: str
    name: str
    memory_nbytes: int
    architecture: str = ""
    """As the vendor counts, for instance ``sm_90``; empty: the node does not say."""


class RegistryEvent(msgspec.Struct, frozen=True, kw_only=True, tag_field="event"):
    """Base of all that is stored."""


class RegistryCreated(RegistryEvent, frozen=True, kw_only=True, tag="registry_created"):
    """First event of every log."""

    registry_id: str
    public_key_hex: str
    """Nodes hold this key for as long as they live, so it never changes."""

    at_s: float


class NodeJoined(RegistryEvent, frozen=True, kw_only=True, tag="node_joined"):
    """A server process offers its devices; replaces an earlier life of the node."""

    node_name: str
    boot_id: str
    address: str
    devices: tuple[Device, ...]
    version: str
    at_s: float
    labels: tuple[tuple[str, str], ...] = ()
    """What its operator says of it: ``zone=a``; sorted."""


class LeaseGranted(
    RegistryEvent, frozen=True, kw_only=True, gc=False, tag="lease_granted"
):
    """A slice of a device belongs to a tenant for as long as it renews."""

    lease_id: str
    epoch: int
    tenant: str
    client: str
    node_name: str
    device_index: int
    share_percent: int
    memory_nbytes: int
    mode: str
    ttl_ms: int
    at_s: float
    group_id: str = ""
    """The same for leases that were granted together: the first one's id."""

    group_size: int = 1
    priority: str = "normal"
    request_id: str = ""
    """The request that it answers, if its client may ask for it again."""

    limit_ms: int = 0
    """It ends so long after it was granted, renewed or not; 0: no limit."""

    apart: str = ""
    why: str = ""
    """Why on that device, for people."""

    waited_ms: int = 0
    """How long its request stood in the queue."""

    slice_number: int = 0
    """Counts the changes of its slice."""

    min_share_percent: int = 0
    """Down to so little it may be shrunk for others; 0: it may not."""

    wish_percent: int = 0
    """Up to so much it grows again when there is room; 0: it has what it wished."""

    is_memory_implied: bool = False
    """Its memory follows its share: nobody has named a quota."""

    has_own_ttl: bool = False
    """Its client has named ``ttl_ms``; otherwise it grows with the pool."""

    constraints: Constraints | None = None
    """Which devices would have done, so that it can be explained; None: any."""


class LeaseResized(
    RegistryEvent, frozen=True, kw_only=True, gc=False, tag="lease_resized"
):
    """Its slice is another one; ``number`` counts the changes."""

    lease_id: str
    number: int
    share_percent: int
    memory_nbytes: int
    mode: str
    priority: str
    wish_percent: int = 0
    """What it is to grow to from now on; 0: as before."""

    is_memory_named: bool = False
    """Its memory follows its share no more."""

    at_s: float


class LeaseEnded(RegistryEvent, frozen=True, kw_only=True, gc=False, tag="lease_ended"):
    """The slice is free again."""

    lease_id: str
    epoch: int
    reason: str
    at_s: float


class RequestQueued(RegistryEvent, frozen=True, kw_only=True, tag="request_queued"):
    """Somebody waits for a slice of each of several devices."""

    request_id: str
    """Follows from the ticket that its client keeps, and does not tell it."""

    tenant: str
    client: str
    priority: str
    share_percent: int
    memory_nbytes: int
    device_count: int
    mode: str
    ttl_ms: int
    wait_ms: int
    """It leaves the queue so long after it came."""

    limit_ms: int = 0
    """Its leases end so long after they are granted; 0: no limit."""

    policy: str = "auto"
    same_node: bool = False
    constraints: Constraints = NO_CONSTRAINTS
    apart: str = ""
    """No node of it holds another lease of its tenant with the same text."""

    min_share_percent: int = 0
    """So little will do; 0: all of its share, or nothing."""

    near: bool = False
    """The nearest to the client of what has room."""

    close_by: str = ""
    """All its devices on nodes with one value of this label."""

    has_own_ttl: bool = False
    """As of ``LeaseGranted``."""

    at_s: float


class RequestLeft(
    RegistryEvent, frozen=True, kw_only=True, gc=False, tag="request_left"
):
    """It waits no longer, and got nothing."""

    request_id: str
    reason: str
    at_s: float


class StartPromised(RegistryEvent, frozen=True, kw_only=True, tag="start_promised"):
    """A waiting request will start at that time at the latest, on those devices.

    Nothing is started meanwhile that would make it later; a lost server may.
    """

    request_id: str
    starts_at_s: float
    devices: tuple[tuple[str, int], ...]
    """Node and device index of each."""

    is_firm: bool = True
    """False: the devices are kept, but nobody knows when they will be free."""

    at_s: float


class LeaseNoticed(
    RegistryEvent, frozen=True, kw_only=True, gc=False, tag="lease_noticed"
):
    """A lease is asked back: it ends after the grace, unless that is withdrawn."""

    lease_id: str
    request_id: str
    """For whom; empty: an admin wants it."""

    tenant: str
    """Whose request it is, and whose budget pays."""

    grace_ms: int
    reason: str
    at_s: float


class NoticeWithdrawn(
    RegistryEvent, frozen=True, kw_only=True, gc=False, tag="notice_withdrawn"
):
    """The lease may stay after all."""

    lease_id: str
    at_s: float


class NodeCordoned(RegistryEvent, frozen=True, kw_only=True, tag="node_cordoned"):
    """The node gets no new leases until it is uncordoned; those it has go on."""

    node_name: str
    reason: str = ""
    is_draining: bool = False
    """Its leases are waited for, or asked to leave."""

    at_s: float


class NodeUncordoned(RegistryEvent, frozen=True, kw_only=True, tag="node_uncordoned"):
    """The node takes new leases again."""

    node_name: str
    at_s: float


class NodeForgotten(RegistryEvent, frozen=True, kw_only=True, tag="node_forgotten"):
    """The node is listed no more: it was silent, and nobody had a lease on it."""

    node_name: str
    reason: str = ""
    at_s: float


class RegistryRestored(
    RegistryEvent, frozen=True, kw_only=True, tag="registry_restored"
):
    """The log was taken from a copy; what came after the copy was made is lost."""

    last_epoch: int
    """Above all that can have been given out meanwhile, so that none comes twice."""

    at_s: float


class TokenCreated(RegistryEvent, frozen=True, kw_only=True, tag="token_created"):
    """Somebody may call; only a hash of the token is kept."""

    token_id: str
    hash_hex: str
    role: str
    name: str
    """The tenant or the server that it is for; empty: any server, or an admin."""

    comment: str = ""
    expires_at_s: float = 0.0
    """0: never."""

    at_s: float


class TokenRevoked(RegistryEvent, frozen=True, kw_only=True, tag="token_revoked"):
    """The token is good for nothing any more."""

    token_id: str
    at_s: float


class TenantSet(RegistryEvent, frozen=True, kw_only=True, tag="tenant_set"):
    """What an admin has decided on a tenant, or on a group of tenants."""

    name: str
    parent: str = ""
    """The group that it belongs to."""

    weight: float = 1.0
    quota_percent: int = 0
    """Guaranteed: percent of one device, so 250 is two and a half devices."""

    limit_percent: int = 0
    """Never more than that at once; 0: no limit."""

    limit_nbytes: int = 0
    preemptions_per_hour: int = 60
    """How many leases of others its requests may end."""

    at_s: float


class TenantRemoved(RegistryEvent, frozen=True, kw_only=True, tag="tenant_removed"):
    """It is as any tenant that nobody has decided on."""

    name: str
    at_s: float


class UseCarried(RegistryEvent, frozen=True, kw_only=True, gc=False, tag="use_carried"):
    """What a tenant holds and has held, in the place of the events that say so."""

    tenant: str
    held_milli: float
    held_nbytes: float
    recent_milli: float
    recent_nbytes: float
    until_s: float
    """The moment of all that; as ``fairshare.Book``."""

    at_s: float


class LogCompacted(RegistryEvent, frozen=True, kw_only=True, tag="log_compacted"):
    """What stands before it says in short what many more events had said."""

    event_count: int
    """How many those were: events are numbered on from there."""

    last_epoch: int
    began_s: float
    """When the first lease was granted."""

    has_had_tokens: bool
    forms: tuple[tuple[int, int], ...]
    """Of the last requests that were granted: devices, thousandths of each."""

    preempted_s: tuple[tuple[str, tuple[float, ...]], ...]
    """When requests of each tenant made others leave, of the last hour."""

    unsettled: tuple[tuple[str, int], ...]
    """Memory that leases have been told to give up and may still use."""

    at_s: float


StoredEvent = (
    RegistryCreated
    | NodeJoined
    | LeaseGranted
    | LeaseResized
    | LeaseEnded
    | RequestQueued
    | RequestLeft
    | StartPromised
    | LeaseNoticed
    | NoticeWithdrawn
    | NodeCordoned
    | NodeUncordoned
    | NodeForgotten
    | RegistryRestored
    | TokenCreated
    | TokenRevoked
    | TenantSet
    | TenantRemoved
    | UseCarried
    | LogCompacted
)
"""Every kind of event, for the store's decoder."""

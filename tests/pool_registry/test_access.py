"""Tokens, roles and TLS: who may call, and who is told off."""

from __future__ import annotations

import datetime
import ipaddress
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pool_registry.pool_model import PoolModel
from xpool_protocol.control import registry_pb2 as pb
from xpool_protocol.control.admin_rpc import AdminClient
from xpool_protocol.control.credentials import Credentials, from_environment
from xpool_protocol.errors import (
    LeaseUnknown,
    RegistryUnreachable,
    TokenInvalid,
    UsageError,
)
from xpool_registry.access import ALLOWED, EVERYBODY, caller_of, check_call
from xpool_registry.refusals import MAX_KNOWN
from xpool_registry.state import State

if TYPE_CHECKING:
    from tests.pool_registry.conftest import Node, StartRegistry

HOUR_MS = 3_600_000


@pytest.fixture
def model() -> PoolModel:
    made = PoolModel()
    made.join("a", devices=2)
    return made


def token(model: PoolModel, role: str, name: str = "", life_ms: int = 0) -> str:
    return model.registry.create_token(role, name, life_ms, "")[1]


def admit(model: PoolModel, method: str, request: object, shown: str) -> object:
    return model.registry.admit(method, request, shown, "ipv4:10.0.0.9:1")


def test_a_pool_without_tokens_is_open(model: PoolModel) -> None:
    assert caller_of(State(), "", model.clock()) == EVERYBODY
    request = pb.JoinRequest(node_name="x")
    assert admit(model, "Join", request, "anything") is request


def test_the_first_token_is_an_admins_and_closes_the_pool(model: PoolModel) -> None:
    with pytest.raises(UsageError, match="the first token must be an admin's"):
        token(model, "tenant", "ada")
    shown = token(model, "admin")
    request = pb.ListLeasesRequest()
    assert admit(model, "ListLeases", request, shown) is request
    with pytest.raises(TokenInvalid, match="this pool wants a token"):
        admit(model, "ListLeases", request, "")
    for wrong in (shown[:-1] + "x", "xpt_x_y", "xpt", "a_b_c_d", "\x00", "é"):
        with pytest.raises(TokenInvalid, match="does not know this token"):
            admit(model, "ListLeases", request, wrong)
    model.restart()
    with pytest.raises(TokenInvalid):
        admit(model, "ListLeases", request, "")
    assert admit(model, "ListLeases", request, shown) is request


def test_what_is_stored_is_not_the_token(model: PoolModel) -> None:
    shown = token(model, "admin")
    secret = shown.split("_")[2]
    assert len(secret) == 48
    assert all(secret not in repr(event) for event in model.store.load())


def test_an_expired_and_a_revoked_token_are_refused(model: PoolModel) -> None:
    admin = token(model, "admin")
    short = token(model, "tenant", "ada", HOUR_MS)
    request = pb.AcquireGroupRequest(device_count=1)
    admit(model, "AcquireGroup", request, short)
    model.now_ms += HOUR_MS
    with pytest.raises(TokenInvalid, match="expired 0 s ago"):
        admit(model, "AcquireGroup", request, short)
    long = token(model, "tenant", "ada")
    model.registry.revoke_token(long.split("_")[1])
    with pytest.raises(TokenInvalid, match="or it was revoked"):
        admit(model, "AcquireGroup", request, long)
    with pytest.raises(UsageError, match="there is no token"):
        model.registry.revoke_token(long.split("_")[1])
    with pytest.raises(UsageError, match="the last token of an admin"):
        model.registry.revoke_token(admin.split("_")[1])


def test_a_tenant_asks_as_itself_and_touches_its_own(model: PoolModel) -> None:
    model.ask("one", tenant="ada", share=10)
    token(model, "admin")
    bob = token(model, "tenant", "bob")
    wish = pb.AcquireGroupRequest(slice=pb.AcquireRequest(tenant="ada"))
    admitted = admit(model, "AcquireGroup", wish, bob)
    assert isinstance(admitted, pb.AcquireGroupRequest)
    assert admitted.slice.tenant == "bob"
    lease = model.leases["one"][0].lease
    renewal = pb.RenewRequest(lease_id=lease.lease_id, epoch=lease.epoch)
    with pytest.raises(LeaseUnknown, match="bob has no lease"):
        admit(model, "Renew", renewal, bob)
    assert admit(model, "Renew", renewal, token(model, "tenant", "ada")) is renewal
    for method in ("ListLeases", "Join", "SetTenant", "Evict", "CreateToken"):
        with pytest.raises(TokenInvalid, match="role tenant may not call"):
            admit(model, method, object(), bob)


def test_a_server_joins_under_its_own_name(model: PoolModel) -> None:
    token(model, "admin")
    one, every = token(model, "server", "gpu-1"), token(model, "server")
    mine, other = pb.JoinRequest(node_name="gpu-1"), pb.JoinRequest(node_name="gpu-2")
    assert admit(model, "Join", mine, one) is mine
    assert admit(model, "Join", other, every) is other
    with pytest.raises(TokenInvalid, match="of the server gpu-1, not of 'gpu-2'"):
        admit(model, "Join", other, one)
    with pytest.raises(TokenInvalid, match="role server may not call"):
        admit(model, "AcquireGroup", pb.AcquireGroupRequest(), every)


def test_refusals_are_logged_with_who_and_what(
    model: PoolModel, capsys: pytest.CaptureFixture[str]
) -> None:
    token(model, "admin")
    bob = token(model, "tenant", "bob")
    with pytest.raises(TokenInvalid):
        admit(model, "Evict", object(), bob)
    line = capsys.readouterr().out.splitlines()[-1]
    for part in ("call refused", "method=Evict", "name=bob", "10.0.0.9", "role=tenant"):
        assert part in line
    assert bob.split("_")[2] not in line


def test_the_same_refusal_is_logged_once_a_minute(
    model: PoolModel, capsys: pytest.CaptureFixture[str]
) -> None:
    """A server without a token sends a heartbeat every second."""
    token(model, "admin")
    bob = token(model, "tenant", "bob")

    def refused(port: int, shown: str = "", method: str = "Heartbeat") -> None:
        with pytest.raises(TokenInvalid):
            model.registry.admit(method, object(), shown, f"ipv4:10.0.0.9:{port}")

    def told() -> list[str]:
        lines = capsys.readouterr().out.splitlines()
        said = (line.partition("times=")[2] for line in lines if "call refused" in line)
        return [one.split()[0] for one in said]

    told()
    for port in range(60):
        refused(port)
        model.now_ms += 1000
    assert told() == ["1"]
    refused(60)
    assert told() == ["60"]
    for shown, method in (("", "Join"), (bob, "Heartbeat"), (bob, "Join")):
        refused(61, shown, method)
    assert told() == ["1", "1", "1"]
    for number in range(2 * MAX_KNOWN):
        with pytest.raises(TokenInvalid):
            model.registry.admit("Join", object(), "", f"ipv4:10.1.{number}:1")
    assert len(told()) == 2 * MAX_KNOWN


@pytest.mark.parametrize(
    ("role", "name", "life_ms"),
    [("root", "", 0), ("tenant", "", 0), ("admin", "x" * 200, 0), ("admin", "", -1)],
)
def test_tokens_that_make_no_sense(
    model: PoolModel, role: str, name: str, life_ms: int
) -> None:
    with pytest.raises(UsageError):
        token(model, role, name, life_ms)


def test_every_role_names_methods_that_exist() -> None:
    from xpool_protocol.control import admin_pb2

    services = (
        pb.DESCRIPTOR.services_by_name["PoolRegistry"],
        admin_pb2.DESCRIPTOR.services_by_name["PoolAdmin"],
    )
    known = {method.name for service in services for method in service.methods}
    for methods in ALLOWED.values():
        assert methods <= known
    with pytest.raises(TokenInvalid):
        check_call(State(), EVERYBODY._replace(role="tenant"), "Unheard", object())


# ---- over real connections


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that is its own authority, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a registry")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "registry.pem").write_bytes(made.public_bytes(pem))
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "registry.key").write_bytes(private)
    (folder / "registry.key").chmod(0o600)
    return folder / "registry.pem", folder / "registry.key"


def test_encrypted_with_tokens_from_end_to_end(
    start_registry: StartRegistry,
    make_node: type[Node],
    certificate: tuple[Path, Path],
) -> None:
    pem, key = certificate
    registry = start_registry("--tls-certificate", str(pem), "--tls-key", str(key))
    ca = pem.read_bytes()

    def client(shown: str = "") -> AdminClient:
        return AdminClient(registry.address, 5.0, Credentials(shown, ca))

    with client() as anybody:
        admin = anybody.create_token("admin").token
    with client(admin) as one:
        server = one.create_token("server", "node-a").token
        tenant = one.create_token("tenant", "ada", expires_in_ms=HOUR_MS).token
        assert [info.role for info in one.list_tokens()] == [
            "admin",
            "server",
            "tenant",
        ]
    with client(server) as one:
        make_node(one).join()
        with pytest.raises(TokenInvalid):
            make_node(one, "node-b").join()
    with client(tenant) as one:
        lease = one.acquire(tenant="somebody else", share_percent=30)
        with pytest.raises(TokenInvalid):
            one.list_leases()
    with client(admin) as one:
        assert [info.tenant for info in one.list_leases()] == ["ada"]
        assert one.release(lease.lease_id, lease.epoch)
    with client("xpt_0_0") as one, pytest.raises(TokenInvalid):
        one.list_nodes()
    in_clear = AdminClient(registry.address, 2.0, Credentials(admin))
    with in_clear, pytest.raises(RegistryUnreachable):
        in_clear.list_nodes()
    assert "call refused" in registry.log.read_text()


def test_beyond_this_machine_only_encrypted_and_with_a_first_token(
    start_registry: StartRegistry, certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    pem, key = certificate
    path = tmp_path / "first" / "token"
    registry = start_registry(
        *("--tls-certificate", str(pem), "--tls-key", str(key)),
        *("--token-file", str(path), "--listen", "0.0.0.0:0"),
    )
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    address = registry.address.replace("0.0.0.0", "127.0.0.1")
    ca = pem.read_bytes()
    nobody = AdminClient(address, 5.0, Credentials("", ca))
    with nobody, pytest.raises(TokenInvalid, match="XPOOL_TOKEN"):
        nobody.list_nodes()
    first = Credentials(path.read_text().strip(), ca)
    with AdminClient(address, 5.0, first) as one:
        assert one.list_nodes() == []


def test_credentials_of_the_environment(tmp_path: Path) -> None:
    held = tmp_path / "token"
    held.write_text("xpt_a_b\n")
    held.chmod(0o600)
    named = {"XPOOL_TOKEN_FILE": str(held)}
    assert from_environment(named).token == "xpt_a_b"
    assert from_environment({**named, "XPOOL_TOKEN": "xpt_c_d"}).token == "xpt_c_d"
    held.chmod(0o644)
    with pytest.raises(UsageError, match="can be read by others"):
        from_environment(named)
    with pytest.raises(UsageError, match="cannot read"):
        from_environment({"XPOOL_CA": str(tmp_path / "none")})
    with pytest.raises(UsageError, match="makes no sense"):
        from_environment({"XPOOL_TOKEN": "é"})


def test_a_token_does_not_leave_this_machine_in_clear() -> None:
    shown = Credentials("xpt_a_b")
    assert shown.metadata("127.0.0.1:1") == (("authorization", "Bearer xpt_a_b"),)
    with pytest.raises(UsageError, match="unencrypted: name the registry's authority"):
        shown.metadata("gpu-host:7700")
    assert shown._replace(may_send_in_clear=True).metadata("gpu-host:7700")
    assert shown._replace(ca_pem=b"x").metadata("gpu-host:7700")
    assert Credentials().metadata("gpu-host:7700") == ()

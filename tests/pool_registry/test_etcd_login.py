"""A real etcd that wants certificates, or a user and a password."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from aetcd import rpc
from aetcd.rpc import auth_pb2
from support.etcd import EtcdServer
from support.waiting import eventually
from xpool_protocol.errors import BrokenError, UsageError
from xpool_registry.etcd import Etcd, place_from_text
from xpool_registry.etcd_login import (
    CA,
    CERTIFICATE,
    KEY,
    PASSWORD_FILE,
    USER,
    EtcdLogin,
    login_from_environment,
)


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """For 127.0.0.1, its own authority, for both ends of a connection."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl here")
    pem, key = folder / f"{name}.pem", folder / f"{name}.key"
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"),
            *("-pkeyopt", "ec_paramgen_curve:P-256", "-subj", f"/CN={name}"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
            *("-addext", "extendedKeyUsage=serverAuth,clientAuth"),
            *("-keyout", str(key), "-out", str(pem)),
        ],
        check=True,
        capture_output=True,
    )
    key.chmod(0o600)
    return pem, key


def works(etcd: Etcd) -> bool:
    """Writes and reads; closes the connection."""
    try:
        etcd.put_if([("pool/x", b"1")])
        etcd.forget_history(etcd.revision())
        found = etcd.get("pool/x")
        return found is not None and found.value == b"1"
    finally:
        etcd.close()


def test_over_tls_with_certificates_of_both(tmp_path: Path) -> None:
    pem, key = certificate(tmp_path, "pool")
    server = EtcdServer(tmp_path, (pem, key))
    server.start()
    try:
        place = place_from_text(server.store)
        environment = {CA: str(pem), CERTIFICATE: str(pem), KEY: str(key)}
        assert works(Etcd(place, login_from_environment(environment)))
        other, _ = certificate(tmp_path, "other")
        for login in (
            EtcdLogin(),  # in clear
            EtcdLogin(ca_pem=pem.read_bytes()),  # shows no certificate
            EtcdLogin(ca_pem=other.read_bytes()),  # trusts somebody else
        ):
            etcd = Etcd(place, login)
            try:
                with pytest.raises(BrokenError, match="no member of"):
                    etcd.get("pool/x")
            finally:
                etcd.close()
    finally:
        server.stop()


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[EtcdServer]:
    """Knows root and the user pool, which may read and write ``pool/``."""
    server = EtcdServer(tmp_path)
    server.start()
    may = auth_pb2.Permission(
        permType=auth_pb2.Permission.READWRITE, key=b"pool/", range_end=b"pool0"
    )
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        auth = rpc.AuthStub(channel)
        auth.UserAdd(rpc.AuthUserAddRequest(name="root", password="r00t"))
        auth.RoleAdd(rpc.AuthRoleAddRequest(name="root"))
        auth.UserGrantRole(rpc.AuthUserGrantRoleRequest(user="root", role="root"))
        auth.RoleAdd(rpc.AuthRoleAddRequest(name="pool"))
        auth.RoleGrantPermission(
            rpc.AuthRoleGrantPermissionRequest(name="pool", perm=may)
        )
        auth.UserAdd(rpc.AuthUserAddRequest(name="pool", password="s3cret"))
        auth.UserGrantRole(rpc.AuthUserGrantRoleRequest(user="pool", role="pool"))
        auth.AuthEnable(rpc.AuthEnableRequest())
    yield server
    server.stop()


def test_with_user_and_password(guarded: EtcdServer, tmp_path: Path) -> None:
    place = place_from_text(guarded.store)
    password = tmp_path / "password"
    password.write_text("s3cret\n")
    password.chmod(0o600)
    environment = {USER: "pool", PASSWORD_FILE: str(password)}
    login = login_from_environment(environment)
    assert works(Etcd(place, login))
    assert "s3cret" not in repr(login)
    # The token that it got is worth nothing to an etcd that has started anew.
    etcd = Etcd(place, login)
    etcd.put_if([("pool/y", b"2")])
    guarded.stop()
    guarded.start()

    def is_back() -> bool:
        try:
            return etcd.get("pool/y") is not None
        except BrokenError:
            return False

    eventually(is_back, "it has logged in again", 20)
    etcd.close()
    for wrong in (EtcdLogin(), EtcdLogin(user="pool", password="guess")):
        etcd = Etcd(place, wrong)
        try:
            with pytest.raises(BrokenError, match="no member of"):
                etcd.get("pool/x")
        finally:
            etcd.close()
    password.chmod(0o644)
    with pytest.raises(UsageError, match="can be read by others"):
        login_from_environment(environment)


def test_half_a_login(tmp_path: Path) -> None:
    for environment, sentence in (
        ({USER: "pool"}, f"{PASSWORD_FILE} is not"),
        ({CERTIFICATE: "x", CA: "x"}, f"{KEY} is not"),
        ({CERTIFICATE: "x", KEY: "x"}, f"{CA} is not"),
        ({CA: str(tmp_path / "none")}, "cannot be read"),
    ):
        with pytest.raises(UsageError, match=sentence):
            login_from_environment(environment)
    assert login_from_environment({}) == EtcdLogin()

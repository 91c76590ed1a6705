"""Beyond this computer: certificates on both sides, and what the configuration refuses."""

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import ValidationError

from spheroidd.daemon.config.model import ServiceConfig
from spheroidd.daemon.config.service_settings import read_settings
from spheroidd.daemon.service.client import CERTIFICATE_VARIABLE, KEY_VARIABLE, DaemonClient
from spheroidd.daemon.service.tokens import Role, TokenFile, UnknownCallerError
from spheroidd.daemon.system.address_files import ServiceAddress, read_address
from spheroidd.protocols import spheroidd_pb2 as wire
from spheroidd.protocols.errors import ConfigError, RefusedError
from tests.daemon.service.rig import fill, running


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, as PEM files."""

    certificate: Path
    key: Path


class Authority:
    """Signs certificates for one test."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._key = folder, ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a laboratory")])
        self.certificate = folder / "ca.pem"
        signed = self._sign(self._name, self._key, is_authority=True)
        self.certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))

    def pair(self, name: str) -> Pair:
        """A certificate for localhost, with its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        made = Pair(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        chain = self._sign(subject, key, is_authority=False).public_bytes(serialization.Encoding.PEM)
        made.certificate.write_bytes(chain + self.certificate.read_bytes())
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        made.key.write_bytes(key.private_bytes(*form))
        return made

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, is_authority: bool) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        builder = x509.CertificateBuilder(
            issuer_name=self._name,
            subject_name=subject,
            public_key=key.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=now - datetime.timedelta(minutes=5),
            not_valid_after=now + datetime.timedelta(hours=1),
        )
        builder = builder.add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256())


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    fill(tmp_path / "data")
    return tmp_path / "data"


def ask(client: DaemonClient) -> str:
    return client.call(client.stub.GetStatus, wire.GetStatusRequest(), 10.0).plate


def connect(data_dir: Path, authority: Authority, token: str | None = None) -> DaemonClient:
    address = read_address(data_dir)
    assert address is not None
    return DaemonClient(type(address)(address.address, address.pid, str(authority.certificate)), token)


def test_beyond_this_computer_a_certificate_and_a_token_are_needed(data_dir: Path, authority: Authority) -> None:
    server = authority.pair("server")
    token = TokenFile(data_dir).create("eve", Role.VIEWER, 3600)
    settings = {"address": "0.0.0.0:0", "tls_certificate": server.certificate, "tls_key": server.key}
    with running(data_dir, **settings) as (service, _):
        with connect(data_dir, authority, token) as client:
            assert ask(client) == "P1"
        with connect(data_dir, authority) as client, pytest.raises(UnknownCallerError, match="token is needed"):
            ask(client)
        plain = ServiceAddress(f"127.0.0.1:{service.port}", 1)
        with DaemonClient(plain, token) as client, pytest.raises(RefusedError, match="the call failed"):
            ask(client)


def test_with_mutual_tls_only_signed_clients_get_as_far_as_their_token(
    data_dir: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server, known = authority.pair("server"), authority.pair("client")
    (tmp_path / "foreign").mkdir()
    stranger = Authority(tmp_path / "foreign").pair("stranger")
    token = TokenFile(data_dir).create("eve", Role.VIEWER, 3600)
    settings = {
        "tls_certificate": server.certificate,
        "tls_key": server.key,
        "tls_client_ca": authority.certificate,
    }
    with running(data_dir, **settings):
        with connect(data_dir, authority, token) as client, pytest.raises(RefusedError, match="the call failed"):
            ask(client)
        for shown, error in ((stranger, RefusedError), (known, None)):
            monkeypatch.setenv(CERTIFICATE_VARIABLE, str(shown.certificate))
            monkeypatch.setenv(KEY_VARIABLE, str(shown.key))
            with connect(data_dir, authority, token) as client:
                if error is None:
                    assert ask(client) == "P1"
                else:
                    with pytest.raises(error):
                        ask(client)
        with connect(data_dir, authority) as client, pytest.raises(UnknownCallerError):
            ask(client)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"address": "0.0.0.0:50551"}, "tls_certificate"),
        ({"address": "[::]:50551"}, "tls_certificate"),
        ({"address": "scope.example:50551"}, "tls_certificate"),
        ({"address": "127.0.0.1"}, "pattern"),
        ({"tls_key": "key.pem"}, "belong together"),
        ({"tls_client_ca": "ca.pem"}, "needs tls_certificate"),
        ({"local_role": "root"}, "local_role"),
    ],
)
def test_settings_that_would_leave_a_door_open_are_refused(settings: dict[str, str], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        ServiceConfig.model_validate(settings)


@pytest.mark.parametrize("address", ["127.0.0.1:0", "[::1]:0", "localhost:50551", "127.9.9.9:1"])
def test_this_computer_alone_needs_no_certificate(address: str) -> None:
    assert ServiceConfig(address=address).local


@pytest.mark.parametrize("content", [None, b"", b"-----BEGIN NONSENSE-----"])
def test_a_certificate_that_is_none_is_named(data_dir: Path, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "server.pem"
    if content is not None:
        path.write_bytes(content)
    with (
        pytest.raises(ConfigError, match="tls_certificate") as caught,
        running(data_dir, tls_certificate=path, tls_key=path),
    ):
        pass
    assert caught.value.where == str(path)


def test_the_settings_of_a_daemon_without_a_plate(tmp_path: Path) -> None:
    file = tmp_path / "service.toml"
    file.write_text("[service]\naddress = '127.0.0.1:50551'\ntls_certificate = 'a.pem'\ntls_key = 'a.key'\n")
    assert read_settings(file).tls_certificate == tmp_path / "a.pem"
    for text, words in (
        ("[service]\nadress = ''", "adress"),
        ("[plate]\nname = 'P1'", "plate"),
        ("service = 1", r"\[service\]"),
        ("[", "cannot be read"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigError, match=words):
            read_settings(file)

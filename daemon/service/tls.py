"""Certificates and keys for both ends of the service."""

from pathlib import Path

import grpc

from spheroidd.daemon.config.model import ServiceConfig
from spheroidd.protocols.errors import ConfigError

_MAX_PEM_BYTES = 1 << 20


def server_credentials(settings: ServiceConfig) -> grpc.ServerCredentials | None:
    """What the server shows, and whom it lets in; None without TLS. ConfigError names a file that cannot be used."""
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    certificate = read_pem(settings.tls_certificate, "service.tls_certificate", b"CERTIFICATE")
    key = read_pem(settings.tls_key, "service.tls_key", b"PRIVATE KEY")
    if settings.tls_client_ca is None:
        return grpc.ssl_server_credentials([(key, certificate)])
    authority = read_pem(settings.tls_client_ca, "service.tls_client_ca", b"CERTIFICATE")
    return grpc.ssl_server_credentials([(key, certificate)], authority, require_client_auth=True)


def client_credentials(authority: Path, certificate: Path | None, key: Path | None) -> grpc.ChannelCredentials:
    """What a client trusts, and shows where the server asks for it. ConfigError as `server_credentials`."""
    root = read_pem(authority, "certificate of the server", b"CERTIFICATE")
    if certificate is None or key is None:
        return grpc.ssl_channel_credentials(root)
    shown = read_pem(certificate, "client certificate", b"CERTIFICATE")
    return grpc.ssl_channel_credentials(root, read_pem(key, "client key", b"PRIVATE KEY"), shown)


def read_pem(path: Path, name: str, kind: bytes) -> bytes:
    """A PEM file that at least looks like one of its kind."""
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_PEM_BYTES)
    except OSError as error:
        raise ConfigError(f"{name} cannot be read: {error.strerror}", where=str(path), do="check the path") from error
    if b"-----BEGIN" not in text or kind not in text:
        raise ConfigError(f"{name} is no PEM of a {kind.decode().lower()}", where=str(path), do="give a PEM file")
    return text

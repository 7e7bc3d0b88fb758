"""A throw-away certificate authority and its certificate for localhost: for the listener that plays a user's own."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from infra.stack.state import write_private

_VALID = timedelta(days=365)


def make_certificates(folder: Path) -> Path:
    """Write `ca.pem` and a PEM key store for localhost into the folder, once; return the key store."""
    keystore = folder / "keystore.pem"
    if keystore.exists() and (folder / "ca.pem").exists():
        return keystore
    folder.mkdir(parents=True, exist_ok=True)
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = _name("Tidemark local authority")
    ca = _builder(ca_name, ca_name, ca_key.public_key()).add_extension(x509.BasicConstraints(True, None), True)
    ca_certificate = ca.sign(ca_key, hashes.SHA256())
    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))])
    leaf = _builder(_name("localhost"), ca_name, key.public_key()).add_extension(names, False)
    certificate = leaf.sign(ca_key, hashes.SHA256())
    pem_key = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    pem = serialization.Encoding.PEM
    write_private(folder / "ca.pem", ca_certificate.public_bytes(pem).decode())
    chain = certificate.public_bytes(pem) + ca_certificate.public_bytes(pem)
    write_private(keystore, pem_key.decode() + chain.decode())
    return keystore


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + _VALID)
    )

"""The throw-away certificates: one authority, one certificate for localhost, made once."""

from __future__ import annotations

import ssl
import stat
from pathlib import Path

from cryptography import x509

from infra.stack.certificates import make_certificates


def test_the_authority_signed_the_certificate_for_localhost(tmp_path: Path) -> None:
    keystore = make_certificates(tmp_path)
    authority = x509.load_pem_x509_certificate((tmp_path / "ca.pem").read_bytes())
    leaf = x509.load_pem_x509_certificates(keystore.read_bytes())[0]
    leaf.verify_directly_issued_by(authority)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(keystore)


def test_the_key_is_the_owners_alone_and_made_once(tmp_path: Path) -> None:
    keystore = make_certificates(tmp_path)
    before = keystore.read_bytes()
    assert stat.S_IMODE(keystore.stat().st_mode) == 0o600
    assert make_certificates(tmp_path).read_bytes() == before

"""Authorities and certificates of a test's own."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_PEM = serialization.Encoding.PEM
_AUTHORITY = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


@dataclass(frozen=True)
class Authority:
    """Signs certificates. `file` has its own, for those who trust it."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    file: Path

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(_PEM)

    def issue(
        self,
        folder: Path,
        name: str,
        *,
        client: bool = False,
        passphrase: bytes | None = None,
        stem: str = "",
    ) -> tuple[Path, Path]:
        """Files of a certificate for `name`, its common name, and its key; for 127.0.0.1 unless it is a client's."""
        key = ec.generate_private_key(ec.SECP256R1())
        usage = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
        names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
        built = (
            _builder(name, self.certificate.subject, key)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(_issuer_key(self.key), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        certificate_file, key_file = (
            folder / f"{stem or name}.crt",
            folder / f"{stem or name}.key",
        )
        kind = (
            serialization.NoEncryption()
            if passphrase is None
            else serialization.BestAvailableEncryption(passphrase)
        )
        key_file.write_bytes(key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, kind))
        certificate_file.write_bytes(built.public_bytes(_PEM))
        return certificate_file, key_file


def new_authority(folder: Path, name: str = "authority") -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        _builder(name, subject, key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_AUTHORITY, critical=True)
        .add_extension(_issuer_key(key), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = folder / f"{name}.ca"
    file.write_bytes(certificate.public_bytes(_PEM))
    return Authority(certificate, key, file)


def _builder(name: str, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=7))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _issuer_key(key: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    """RFC 5280 wants it, and Python looks for it from 3.13 on."""
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())

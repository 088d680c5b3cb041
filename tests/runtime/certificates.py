"""Certificates for the tests of TLS, made with the openssl program."""

import shutil
import subprocess

import pytest


def openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


class Authority:
    """Signs certificates for 127.0.0.1."""

    def __init__(self, folder, name):
        if shutil.which("openssl") is None:
            pytest.skip("needs the openssl program: apt-get install openssl")
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.name = folder, name
        self.pem, self._key = folder / f"{name}.pem", folder / f"{name}.key"
        openssl("req", "-x509", *NEW, "-keyout", self._key, "-out", self.pem, "-subj", f"/CN={name}", "-days", "2")

    def signed(self, name, *, days=2, address="IP:127.0.0.1"):
        """Certificate and key; `days` below 0 make one that has expired."""
        stem = self.folder / f"{self.name}-{name}"
        certificate, key, request, extra = (stem.with_suffix(end) for end in (".pem", ".key", ".csr", ".ext"))
        extra.write_text(f"subjectAltName={address}")
        openssl("req", *NEW, "-keyout", key, "-out", request, "-subj", f"/CN={name}")
        openssl(
            "x509", "-req", "-in", request, "-CA", self.pem, "-CAkey", self._key, "-CAcreateserial", "-days", days,
            "-extfile", extra, "-out", certificate,
        )  # fmt: skip
        return {"certificate": certificate, "key": key}


NEW = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")

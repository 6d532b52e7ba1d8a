# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The configuration volume of an emulated TD: three files of the host (policy.md 0.3, ghci-ratls.md 9)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from migtd import failures
from migtd.errors import InvalidPolicyError


class FileConfiguration:
    """Implements `migtd.guest.interfaces.ConfigurationVolume`.

    Each file is read once, here, so that what is measured is what is used. A name of None means that the volume has no
    such file. Raises InvalidPolicyError (MIGTD-CONFIGURATION-MISSING) if a named file cannot be read: policy.md 3.3.
    """

    def __init__(
        self,
        policy_file: Path | None = None,
        root_ca_file: Path | None = None,
        policy_issuer_chain_file: Path | None = None,
    ) -> None:
        self._policy = _read(policy_file)
        self._root_ca = _read(root_ca_file)
        self._policy_issuer_chain = _read(policy_issuer_chain_file)

    def policy(self) -> bytes | None:
        """The policy file (v1 or v2), or None."""
        return self._policy

    def root_ca(self) -> bytes | None:
        """The SGX root CA certificate, DER (policy v1), or None."""
        return self._root_ca

    def policy_issuer_chain(self) -> bytes | None:
        """The policy issuer chain, PEM (policy v2), or None."""
        return self._policy_issuer_chain


@dataclass(frozen=True, slots=True)
class GivenConfiguration:
    """The same with contents instead of files."""

    given_policy: bytes
    given_root_ca: bytes | None = None
    given_policy_issuer_chain: bytes | None = None

    def policy(self) -> bytes | None:
        """The policy."""
        return self.given_policy

    def root_ca(self) -> bytes | None:
        """The SGX root CA certificate, DER, or None."""
        return self.given_root_ca

    def policy_issuer_chain(self) -> bytes | None:
        """The policy issuer chain, PEM, or None."""
        return self.given_policy_issuer_chain


def _read(file: Path | None) -> bytes | None:
    if file is None:
        return None
    try:
        return file.read_bytes()
    except OSError as error:
        raise InvalidPolicyError(failures.CONFIGURATION_MISSING, f"{file}: {error.strerror or error}") from error

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""`pki.make`, `pki.show` and `pki.export`: a PKI for several labs, and what of a running lab's PKI others may have."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lab import engines, failures
from lab.errors import EngineError, ExitStatus, UsageError
from lab.evidence import LAB, Evidence, new_pki, pull_pki_text
from lab.interrupts import run_interruptible
from lab.names import resolve_lab_name
from lab.options import PkiExportOptions, PkiMakeOptions, PkiShowOptions
from lab.pki import ROOT_DER, ROOT_PEM, make_pki, read_pki, root_files
from lab.plan import ResolvedLab
from lab.programs import in_thread
from lab.state import remembered_lab_file, state_roots

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from vmm_stub.quoting.material import QuotingMaterial
    from vmm_stub.quoting.pki import LabPki

PCK_CHAIN: Final = "pck-chain.pem"
PACKED: Final = "collateral.bin"
"""The collateral of a host as GetQuote gives it (policy.md 4.6), and `--collateral-file` takes it."""


def make(options: PkiMakeOptions) -> ExitStatus:
    """Make a PKI in a folder. Raises UsageError (LAB-FILE-EXISTS, LAB-FILE-UNWRITABLE), EngineError (LAB-STATE-UNSAFE).

    From a seed it is always the same PKI, made at a fixed date: what a test recorded with it stays true.
    """
    text = new_pki(os.urandom, time.time()) if options.seed is None else _seeded(options.seed)
    make_pki(options.folder, text)
    _say(f"made a PKI in {options.folder}; a lab file takes it as `pki: {options.folder.absolute()}`")
    return ExitStatus.SUCCESS


def show(options: PkiShowOptions) -> ExitStatus:
    """Print the certificates of a folder's PKI, as text or JSON. Raises as `read_pki` does."""
    pki = pull_pki_text(read_pki(options.folder))
    facts = _facts(options.folder, pki)
    if options.json:
        print(json.dumps(facts))  # noqa: T201 - a task's answer
        return ExitStatus.SUCCESS
    print(f"made {facts['issued']}, CRLs at {facts['pcs_url']}")  # noqa: T201 - as above
    for each in facts["certificates"]:
        print(f"{each['subject']}\n  serial {each['serial']}, to {each['not_after']}\n  SHA-256 {each['sha256']}")  # noqa: T201 - as above
    return ExitStatus.SUCCESS


def export(options: PkiExportOptions) -> ExitStatus:
    """Write what of a running lab's PKI is public: the root, and each host's PCK chain and collateral.

    Raises UsageError (LAB-FILE-EXISTS, LAB-FILE-UNWRITABLE) and EngineError (LAB-NOT-RUNNING, LAB-DIFFERS,
    LAB-PKI-ABSENT, what engines raise). Then there is no folder.
    """
    return run_interruptible(_export(options))


async def _export(options: PkiExportOptions) -> ExitStatus:
    name = resolve_lab_name(options.name)
    resolved, evidence = await in_thread(_running, name, options.engine)
    pki = pull_pki_text(evidence.pki)
    files = dict(root_files(pki))
    for host in resolved.lab.hosts:
        material = evidence.material(resolved.lab, host)
        files |= {f"{host}/{file}": content for file, content in _host_files(material)}
    _write_folder(options.folder, files)
    _say(f"wrote {len(files)} files of {name} to {options.folder}, none of them secret")
    return ExitStatus.SUCCESS


def _running(name: str, engine: str | None) -> tuple[ResolvedLab, Evidence]:
    """A running lab as it was started, with its PKI."""
    found, status = engines.find(name, engine)
    resolved = ResolvedLab.from_text(remembered_lab_file(state_roots(os.environ)[0], name, found.name) or b"")
    if resolved is None or resolved.plan().fingerprint != status.fingerprint:
        raise EngineError(failures.DIFFERS, name)
    if resolved.evidence is None or not resolved.evidence.pki:
        raise EngineError(failures.PKI_ABSENT, f"{name} runs with attestation {resolved.lab.attestation}, not {LAB}")
    return resolved, resolved.evidence


def _host_files(material: QuotingMaterial) -> Iterator[tuple[str, bytes]]:
    from migtd.attestation.quote.collateral import push_packed  # noqa: PLC0415 - the readers of quotes are not small

    collateral = material.collateral
    yield PCK_CHAIN, material.pck_chain
    yield PACKED, push_packed(collateral)
    yield "pck-crl-issuer-chain.pem", collateral.pck_crl_issuer_chain
    yield "root-ca-crl.pem", collateral.root_ca_crl
    yield "pck-crl.pem", collateral.pck_crl
    yield "tcb-info-issuer-chain.pem", collateral.tcb_info_issuer_chain
    yield "qe-identity-issuer-chain.pem", collateral.qe_identity_issuer_chain
    yield "qe-identity.json", collateral.qe_identity
    for fmspc, document in material.tcb_infos.items():
        yield f"tcb-info-{fmspc}.json", document


def _write_folder(folder: Path, files: dict[str, bytes]) -> None:
    """Write files into a new folder: all of them or none. One that is there already may only be empty."""
    target = folder.absolute()
    try:
        fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise UsageError(failures.FILE_UNWRITABLE, f"{folder}: {error.strerror}") from error
    try:
        for name, content in files.items():
            (fresh / name).parent.mkdir(exist_ok=True)
            (fresh / name).write_bytes(content)
        fresh.chmod(0o755)
        # Fails on whatever is not an empty folder.
        fresh.rename(target)
    except OSError as error:
        taken = os.path.lexists(target)
        kind = failures.FILE_EXISTS if taken else failures.FILE_UNWRITABLE
        raise UsageError(kind, str(folder) if taken else f"{folder}: {error.strerror}") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _seeded(seed: str) -> str:
    from vmm_stub.quoting.pki import LabPki, push_pki  # noqa: PLC0415 - libraries for certificates are not small

    return push_pki(LabPki.from_seed(seed))


def _facts(folder: Path, pki: LabPki) -> dict[str, Any]:
    roles = (("root", pki.root), ("pck-platform-ca", pki.platform_ca), ("tcb-signing", pki.tcb_signing))
    return {
        "schema": 1,
        "folder": str(folder),
        "issued": pki.issued.isoformat(),
        "pcs_url": pki.pcs_url,
        "root_key": pki.root_key.hex(),
        "files": [ROOT_DER, ROOT_PEM],
        "certificates": [_certificate_facts(role, certificate) for role, certificate in roles],
    }


def _certificate_facts(role: str, certificate: Certificate) -> dict[str, str]:
    from cryptography.hazmat.primitives.serialization import Encoding  # noqa: PLC0415 - as above

    return {
        "role": role,
        "subject": certificate.subject.rfc4514_string(),
        "serial": f"{certificate.serial_number:x}",
        "not_before": certificate.not_valid_before_utc.isoformat(),
        "not_after": certificate.not_valid_after_utc.isoformat(),
        "sha256": hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest(),
    }


def _say(text: str) -> None:
    print(text, file=sys.stderr)  # noqa: T201 - a task talks

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""A signed v2 policy and the evidence of a MigTD that runs it, in the making: every part may be replaced before.

Independent of the lab's policy tools, so that the reader is not only tested against what the same hands made.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from migtd import event_log
from migtd.attestation.quote.verify import verify_quote
from migtd.policy.v2.evidence import Peer, Tools
from migtd.policy.v2.flows import FirstMigTd
from migtd.policy.v2.peer import PolicyFiles
from migtd.policy.v2.servtd_ext import ServtdExt
from migtd.policy.v2.startup import OwnPolicy, init_policy
from tests.unit import quote_world

LONG_AGO = datetime(2001, 1, 1, tzinfo=UTC)
MRTD = b"\x31" * 48
DIGEST_SIZE = 48
TDREPORT_SIZE = 1024


def key_number(number: int, curve: type[ec.EllipticCurve] = ec.SECP384R1) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(0xB0B0 + number, curve())


ROOT, CA, POLICY, IDENTITY, MAPPING, OTHER_ROOT, STRANGER = map(key_number, range(7))


@functools.cache
def issued(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    ca: bool | bytes = False,
    digest: type[SHA256 | SHA384] = SHA384,
) -> bytes:
    """A certificate as PEM; expired, which nobody minds. `ca` as bytes is the content of BasicConstraints."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(quote_world.x509_name(name))
        .issuer_name(quote_world.x509_name(issuer))
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(LONG_AGO)
        .not_valid_after(LONG_AGO)
    )
    if isinstance(ca, bytes):
        garbage = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.19"), ca)
        builder = builder.add_extension(garbage, critical=True)
    elif ca:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    else:
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return builder.sign(issuer_key, digest(), ecdsa_deterministic=True).public_bytes(Encoding.PEM)


@dataclass(frozen=True)
class Chain:
    """Leaf, intermediate, root: the leaf's name and key, and under which root it is."""

    name: str
    key: ec.EllipticCurvePrivateKey
    root: ec.EllipticCurvePrivateKey = ROOT
    intermediate: ec.EllipticCurvePrivateKey = CA
    intermediate_is_ca: bool | bytes = True
    leaf_digest: type[SHA256 | SHA384] = SHA384

    def pem(self) -> bytes:
        leaf = issued(self.name, self.key, "Intermediate", self.intermediate, digest=self.leaf_digest)
        middle = issued("Intermediate", self.intermediate, "Root", self.root, ca=self.intermediate_is_ca)
        return leaf + middle + issued("Root", self.root, "Root", self.root, ca=True)


def signature_of(key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    """DER."""
    return key.sign(message, ec.ECDSA(SHA384(), deterministic_signing=True))


def signed(name: str, text: str, key: ec.EllipticCurvePrivateKey) -> str:
    return f'{{"{name}":{text},"signature":"{signature_of(key, text.encode()).hex()}"}}'


def compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def rule(operation: str, reference: object) -> dict[str, object]:
    return {"operation": operation, "reference": reference}


def platform_entry(**parts: object) -> dict[str, Any]:
    return {"global": parts}


def servtd_entry(**rules: object) -> dict[str, Any]:
    return {"servtd": {"migtdIdentity": rules}}


def level(isvsvn: int, date: str = "2025-02-01T00:00:00Z", status: str = "UpToDate") -> dict[str, Any]:
    return {"tcb": {"isvsvn": isvsvn}, "tcbDate": date, "tcbStatus": status}


def identity() -> dict[str, Any]:
    return {
        "id": "MigTD",
        "version": 1,
        "issueDate": "2020-01-01T00:00:00Z",
        "nextUpdate": "2020-02-01T00:00:00Z",
        "tcbEvaluationNumber": 1,
        "xfam": "",
        "attributes": "",
        "mrConfigId": "",
        "mrOwner": "",
        "mrOwnerConfig": "",
        "mrsigner": "",
        "isvProdId": 1,
        "tcbLevels": [level(3), level(1, "2024-02-01T00:00:00Z", "OutOfDate")],
    }


def mapping(*mappings: object) -> dict[str, Any]:
    return {
        "id": "MigTD",
        "version": 1,
        "issueDate": "2020-01-01T00:00:00Z",
        "nextUpdate": "2020-02-01T00:00:00Z",
        "mrSigner": "",
        "isvProdId": 1,
        "svnMappings": list(mappings),
    }


def svn_mapping(isvsvn: int, **measurements: bytes) -> dict[str, Any]:
    return {"tdMeasurements": {name: value.hex().upper() for name, value in measurements.items()}, "isvsvn": isvsvn}


def _unchanged(log: bytes) -> bytes:
    return log


@dataclass(frozen=True, eq=False)
class World:
    """The default is accepted by a peer with the same one. `replace` what shall be other, then take what is needed."""

    policy_svn: int = 4
    blocks: dict[str, Any] = field(
        default_factory=lambda: {
            "policy": [
                platform_entry(
                    tcb={"tcbDate": rule("greater-or-equal", "2024-01-01T00:00:00Z")},
                    crl={"pckCrlNum": rule("greater-or-equal", "self")},
                ),
                servtd_entry(isvsvn=rule("greater-or-equal", 1)),
            ],
            "forwardPolicy": [servtd_entry(isvsvn=rule("greater-or-equal", "self"))],
        }
    )
    data: dict[str, Any] = field(default_factory=dict)
    """Other top-level members of policyData, replaced or added."""
    identity: dict[str, Any] = field(default_factory=identity)
    mappings: list[dict[str, Any]] | None = None
    """None: the own measurements are SVN 3."""
    policy_chain: Chain = Chain("Policy issuer", POLICY)
    identity_chain: Chain = Chain("Identity issuer", IDENTITY)
    mapping_chain: Chain = Chain("Mapping issuer", MAPPING)
    platform: quote_world.World = field(default_factory=quote_world.World)
    mrtd: bytes = MRTD
    mrowner: bytes = bytes(DIGEST_SIZE)
    mrownerconfig: bytes = bytes(DIGEST_SIZE)
    log_change: Callable[[bytes], bytes] = _unchanged

    # --- the policy --------------------------------------------------------------------------------------------------
    @functools.cache  # noqa: B019 - worlds are few and live as long as the tests
    def collaterals(self) -> dict[str, Any]:
        made = self.platform.collateral()
        return {
            "majorVersion": made.major,
            "minorVersion": made.minor,
            "teeType": made.tee_type,
            "rootCa": self.platform.chain(["root"]).decode(),
            "pckCrlIssuerChain": made.pck_crl_issuer_chain.decode(),
            "rootCaCrl": made.root_ca_crl.decode(),
            "pckCrl": made.pck_crl.decode(),
            "platforms": [
                {
                    "fmspc": self.platform.sgx.fmspc.hex().upper(),
                    "tcbInfoIssuerChain": made.tcb_info_issuer_chain.decode(),
                    "tcbInfo": made.tcb_info.decode(),
                }
            ],
            "qeIdentityIssuerChain": made.qe_identity_issuer_chain.decode(),
            "qeIdentity": made.qe_identity.decode(),
        }

    def servtd_collateral_text(self) -> str:
        documents = mapping(*(self.own_mapping() if self.mappings is None else self.mappings))
        members = {
            "majorVersion": "1",
            "minorVersion": "0",
            "servtdIdentityIssuerChain": compact(self.identity_chain.pem().decode()),
            "servtdIdentity": signed("tdIdentity", compact(self.identity), self.identity_chain.key),
            "servtdTcbMappingIssuerChain": compact(self.mapping_chain.pem().decode()),
            "servtdTcbMapping": signed("tdTcbMapping", compact(documents), self.mapping_chain.key),
        }
        return object_of(members)

    def own_mapping(self) -> list[dict[str, Any]]:
        rtmrs = event_log.replay(self._log(b""))
        return [svn_mapping(3, mrtd=self.mrtd, rtmr0=rtmrs[0], rtmr1=rtmrs[1])]

    @functools.cache  # noqa: B019 - worlds are few and live as long as the tests
    def policy_data_text(self) -> str:
        members = {
            "id": compact("test policy"),
            "version": compact("2.0"),
            "policySvn": str(self.policy_svn),
            **{name: compact(block) for name, block in self.blocks.items()},
            "collaterals": compact(self.collaterals()),
            "servtdCollateral": self.servtd_collateral_text(),
            **{name: compact(value) for name, value in self.data.items()},
        }
        return object_of(members)

    @functools.cache  # noqa: B019 - worlds are few and live as long as the tests
    def policy(self) -> bytes:
        return signed("policyData", self.policy_data_text(), self.policy_chain.key).encode()

    def files(self) -> PolicyFiles:
        return PolicyFiles(self.policy(), self.policy_chain.pem())

    @functools.cache  # noqa: B019 - worlds are few and live as long as the tests
    def own(self) -> OwnPolicy:
        return init_policy(self.files())

    # --- the evidence ------------------------------------------------------------------------------------------------
    @functools.cache  # noqa: B019 - worlds are few and live as long as the tests
    def log(self) -> bytes:
        return self.log_change(self._log(self.policy()))

    def _log(self, policy: bytes) -> bytes:
        separators = [event_log.separator_event(1), event_log.separator_event(2)]
        tagged = [
            event_log.policy_issuer_chain_event(self.policy_chain.pem()),
            event_log.policy_v2_event(policy),
        ]
        return log_of(*separators, *map(logged, tagged))

    @functools.cache  # noqa: B019 - worlds are few and live as long as the tests
    def quote(self) -> bytes:
        rtmrs = event_log.replay(self._log(self.policy()))
        body = replace(
            self.platform.body,
            mrtd=self.mrtd,
            mrowner=self.mrowner,
            mrownerconfig=self.mrownerconfig,
            **{f"rtmr{index}": value for index, value in enumerate(rtmrs)},
        )
        return replace(self.platform, body=body).quote()

    @functools.cache  # noqa: B019 - worlds are few and live as long as the tests
    def tdinfo(self) -> bytes:
        rtmrs = event_log.replay(self._log(self.policy()))
        return b"".join(
            (bytes(16), self.mrtd, bytes(48), self.mrowner, self.mrownerconfig, *rtmrs, bytes(48), bytes(64))
        )

    def report(self) -> bytes:
        return report_of(self.tdinfo())

    def peer(self) -> Peer:
        return Peer(self.files(), self.log())

    def first(self) -> FirstMigTd:
        """The own MigTD as the one that the target was bound to first, ignoring nothing."""
        tdinfo = self.tdinfo()
        return FirstMigTd(tdinfo, servtd_ext(tdinfo).push())

    def tools(self, **changes: Any) -> Tools:
        """Tools that verify with the platform's root; the own quote is this world's."""
        root_key = self.platform.root_key()
        defaults: dict[str, Any] = {
            "verify_quote": lambda quote, chosen: verify_quote(quote, root_key, chosen).record,
            "local_quote": self.quote,
            "verify_report": lambda _mac_struct: True,
        }
        return Tools(**defaults | changes)


def object_of(members: dict[str, str]) -> str:
    return "{" + ",".join(f"{compact(name)}:{text}" for name, text in members.items()) + "}"


def logged(event: event_log.TaggedEvent) -> event_log.Event:
    data = event.tag.to_bytes(4, "little") + len(event.payload).to_bytes(4, "little") + event.payload
    return event_log.Event(event.mr_index, event_log.EV_EVENT_TAG, hashlib.sha384(event.hashed).digest(), data)


def log_of(*events: event_log.Event) -> bytes:
    """A log with its spare byte."""
    return event_log.push_spec_id() + b"".join(map(event_log.push_event, events)) + b"\0"


def report_of(tdinfo: bytes, **changes: bytes) -> bytes:
    """A TDREPORT over a TDINFO; `tdinfo_hash` and `tcb_hash` replace what is right."""
    tcb = bytes(range(239))
    tcb_hash = changes.get("tcb_hash", hashlib.sha384(tcb).digest())
    tdinfo_hash = changes.get("tdinfo_hash", hashlib.sha384(tdinfo).digest())
    head = b"\x81" + bytes(31) + tcb_hash + tdinfo_hash + bytes(64) + bytes(32) + bytes(32)
    return head + tcb + bytes(17) + tdinfo


def servtd_ext(init_tdinfo: bytes, init_attr: int = 0) -> ServtdExt:
    """SERVTD_EXT of a target whose first MigTD had this (masked) TDINFO."""
    info_hash = hashlib.sha384(init_tdinfo).digest()
    return ServtdExt(
        info_hash, init_attr, bytes(8), bytes(16), bytes(16), bytes(12), bytes(4), info_hash, 0, bytes(104)
    )


def point(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def svn_config(svn: int) -> bytes:
    """MROWNERCONFIG."""
    return svn.to_bytes(4, "little") + bytes(44)

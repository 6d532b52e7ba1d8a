# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The tasks `policy.*`: the console scripts with the same flags, and what goes beyond them (docs/policy-tools.md)."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from invoke.collection import Collection
from invoke.context import Context

from lab import failures
from lab.errors import ExitStatus, UsageError
from lab.task import at_most_one, exactly_one, task, whole_number

_JSON = {"json": "verdict on standard output, as JSON"}


@task(
    help={
        "output": "file to write",
        "policy-data": "v2: object with all else that policyData has; makes the policy a v2",
        "collaterals": "collaterals document; v1: read collateral from it",
        "servtd-collateral": "v2: what policy.servtd bundled",
        "base-url": "v1: ask this PCS-compatible service",
        "from-files": "v1: read collateral from the files of a folder",
        "pre-production": "v1: ask Intel's pre-production service",
    },
    short={"output": "o"},
)
def generate(
    _context: Context,
    *,
    output: str | None = None,
    policy_data: str | None = None,
    collaterals: str | None = None,
    servtd_collateral: str | None = None,
    base_url: str | None = None,
    from_files: str | None = None,
    pre_production: bool = False,
) -> ExitStatus:
    """Make a policy v1 of collateral, or with --policy-data the policyData of a v2, ready to be signed."""
    flags: dict[str, str | bool | None] = {"output": output, "collaterals": collaterals}
    v1_only = {"base_url": base_url, "from_files": from_files, "pre_production": pre_production}
    if policy_data is None and servtd_collateral is None:
        return _call("cli_policy_generator", {**flags, **v1_only})
    if any(v1_only.values()):
        named = ", ".join(f"--{name.replace('_', '-')}" for name, value in v1_only.items() if value)
        raise UsageError(failures.USAGE_VALUE_INVALID, f"{named} makes a policy v1, --policy-data a v2")
    flags |= {"policy_data": policy_data, "servtd_collateral": servtd_collateral}
    return _call("cli_policy_generator", flags, "v2")


@task(
    help={
        "name": "name of the signed value, such as policyData",
        "input": "document to sign or to verify",
        "output": "file to write",
        "sign": "sign with --private-key",
        "verify": "verify with --public-key",
        "finalize": "join the input and --signature, unverified",
        "detach": "the signature is a file of its own",
        "private-key": "P-384 private key, PKCS#8 PEM",
        "public-key": "P-384 public key, PEM",
        "signature": "DER signature",
    },
    short={"name": "n", "input": "i", "output": "o"},
)
def sign(
    _context: Context,
    *,
    name: str | None = None,
    input: str | None = None,  # noqa: A002 - the flag is the reference's
    output: str | None = None,
    sign: bool = False,
    verify: bool = False,
    finalize: bool = False,
    detach: bool = False,
    private_key: str | None = None,
    public_key: str | None = None,
    signature: str | None = None,
) -> ExitStatus:
    """Sign a JSON document, verify a signed one, or join a document and its signature."""
    flags: dict[str, str | bool | None] = {"name": name, "input": input, "output": output, "detach": detach}
    flags |= {"sign": sign, "verify": verify, "finalize": finalize}
    flags |= {"private_key": private_key, "public_key": public_key, "signature": signature}
    return _call("cli_signer", flags)


@task(
    help={
        "output": "file to write",
        "provider": "intel (default) or azure-thim",
        "pre-production": "intel: its pre-production service",
        "azure-region": "azure-thim: the region, default useast",
        "base-url": "any PCS-compatible service, such as a lab's",
        "from-files": "fetch nothing: read the files of a folder",
        "save-files": "also write the files that --from-files reads",
    },
    short={"output": "o"},
)
def collateral(
    _context: Context,
    *,
    output: str | None = None,
    provider: str | None = None,
    pre_production: bool = False,
    azure_region: str | None = None,
    base_url: str | None = None,
    from_files: str | None = None,
    save_files: str | None = None,
) -> ExitStatus:
    """Fetch the collateral of all platforms with TDX, or read it from files, and write the collaterals document."""
    flags: dict[str, str | bool | None] = {"output": output, "provider": provider, "pre_production": pre_production}
    flags |= {"azure_region": azure_region, "base_url": base_url, "from_files": from_files, "save_files": save_files}
    return _call("cli_collateral_generator", flags)


@task(
    help={
        "what": "identity, mapping or bundle (default)",
        "output": "file to write",
        "measurements": "identity, mapping: what policy.from-quote wrote",
        "template": "identity, mapping: the document to change; default: one of one level or entry",
        "isvsvn": "identity, mapping: the SVN, default: that of the measurements",
        "identity": "bundle: signed identity",
        "identity-chain": "bundle: its issuer chain, PEM",
        "mapping": "bundle: signed TCB mapping",
        "mapping-chain": "bundle: its issuer chain, PEM",
    },
    short={"output": "o"},
    kinds={"isvsvn": whole_number},
    trailing="what",
    form="[WHAT]",
)
def servtd(
    _context: Context,
    *,
    what: list[str] | None = None,
    output: str | None = None,
    measurements: str | None = None,
    template: str | None = None,
    isvsvn: int | None = None,
    identity: str | None = None,
    identity_chain: str | None = None,
    mapping: str | None = None,
    mapping_chain: str | None = None,
) -> ExitStatus:
    """Make what a policy v2 says of MigTDs: identity and mapping to be signed, or the bundle of the signed ones."""
    chosen = at_most_one(what, "what") or "bundle"
    if chosen == "bundle":
        flags: dict[str, str | bool | None] = {"identity": identity, "identity_chain": identity_chain}
        flags |= {"mapping": mapping, "mapping_chain": mapping_chain, "output": output}
        return _call("cli_servtd_generator", flags)
    from lab.policy_tools import commands

    return commands.make_servtd(
        chosen, _required("measurements", measurements), template, isvsvn, _required("output", output)
    )


@task(
    help={"policy": "signed policy", "cert-chain": "policy issuer chain, PEM, leaf first", **_JSON},
    short={"policy": "p", "cert_chain": "c"},
)
def verify(
    _context: Context, *, policy: str | None = None, cert_chain: str | None = None, json: bool = False
) -> ExitStatus:
    """Say what a MigTD would say of a signed policy v2 and its issuer chain."""
    if not json:
        return _call("cli_policy_verifier", {"policy": policy, "cert_chain": cert_chain})
    from lab.policy_tools import commands

    return commands.verify(_required("policy", policy), _required("cert-chain", cert_chain))


@task(
    help={
        "policy": "the local side's policy",
        "role": "the local side's: source (default) or destination",
        "local": "the local side's quote; v1: or its supplemental record",
        "peer": "the peer's quote or record",
        "local-log": "v1: the local side's event log",
        "peer-log": "the peer's event log",
        "collateral": "v1: collateral for quotes, JSON or packed",
        "root-ca": "v1: root CA, DER, where the collateral is packed",
        "issuer-chain": "v2: issuer chain of the policy; makes it a v2",
        "peer-policy": "v2: the peer's policy, default: the same",
        "peer-issuer-chain": "v2: its issuer chain, default: the same",
        **_JSON,
    },
    short={"policy": "p"},
)
def explain(
    _context: Context,
    *,
    policy: str | None = None,
    role: str | None = None,
    local: str | None = None,
    peer: str | None = None,
    local_log: str | None = None,
    peer_log: str | None = None,
    collateral: str | None = None,
    root_ca: str | None = None,
    issuer_chain: str | None = None,
    peer_policy: str | None = None,
    peer_issuer_chain: str | None = None,
    json: bool = False,
) -> ExitStatus:
    """Say what a policy says of a peer's evidence, rule by rule."""
    from lab.policy_tools import commands

    return commands.explain(
        commands.ExplainOptions(
            policy=_required("policy", policy),
            local=_required("local", local),
            peer=_required("peer", peer),
            role=role or commands.SOURCE,
            local_log=local_log,
            peer_log=peer_log,
            collateral=collateral,
            root_ca=root_ca,
            issuer_chain=issuer_chain,
            peer_policy=peer_policy,
            peer_issuer_chain=peer_issuer_chain,
            json=json,
        )
    )


@task(
    name="hash",
    help={
        "image": "image; its name contains .bin or .igvm",
        "manifest": "JSON with the given fields of TDINFO",
        "output-file": "write the hash here, not to standard output",
        "json": "the hash as JSON",
        "test-disable-ra-and-accept-all": "the image verifies nothing of its peer",
        "policy-v2": "the image has a policy v2 and its issuer chain",
        "servtd-attr": "SERVTD_ATTR, decimal, default 0",
        "calc-servtd-hash": "the second-level hash, not the first",
        "output-td-info": "write MRTD and RTMRs as JSON",
        "update-tcb-mapping": "put MRTD, RTMR0 and RTMR1 into this TCB mapping",
        "verbose": "tell more on standard error",
    },
    short={
        "image": "i",
        "manifest": "m",
        "output_file": "o",
        "servtd_attr": "s",
        "calc_servtd_hash": "c",
        "test_disable_ra_and_accept_all": "t",
        "verbose": "v",
    },
)
def hash_image(
    _context: Context,
    *,
    image: str | None = None,
    manifest: str | None = None,
    output_file: str | None = None,
    json: bool = False,
    test_disable_ra_and_accept_all: bool = False,
    policy_v2: bool = False,
    servtd_attr: str | None = None,
    calc_servtd_hash: bool = False,
    output_td_info: str | None = None,
    update_tcb_mapping: str | None = None,
    verbose: bool = False,
) -> ExitStatus:
    """Compute the ServTD hash and the measurements of a MigTD image."""
    flags: dict[str, str | bool | None] = {"image": image, "manifest": manifest, "output_file": output_file}
    flags |= {"json": json, "policy_v2": policy_v2, "servtd_attr": servtd_attr, "verbose": verbose}
    flags |= {"test_disable_ra_and_accept_all": test_disable_ra_and_accept_all, "calc_servtd_hash": calc_servtd_hash}
    flags |= {"output_td_info": output_td_info, "update_tcb_mapping": update_tcb_mapping}
    return _call("cli_image_hash", flags)


@task(
    help={"file": "quote or TDREPORT, binary", "output": "file to write, default: standard output"},
    short={"output": "o"},
    trailing="file",
    form="FILE",
)
def from_quote(_context: Context, *, file: list[str] | None = None, output: str | None = None) -> ExitStatus:
    """Write the measurements in a quote or TDREPORT as JSON; nothing of it is verified."""
    from lab.policy_tools import commands

    return commands.from_quote(exactly_one(file, "file"), output)


def _call(tool: str, flags: Mapping[str, str | bool | None], *leading: str) -> ExitStatus:
    """Run a console script with these options; flags without a value are left out."""
    arguments = list(leading)
    for name, value in flags.items():
        option = f"--{name.replace('_', '-')}"
        if value is True:
            arguments.append(option)
        elif isinstance(value, str):
            arguments.append(f"{option}={value}")
    return ExitStatus(importlib.import_module(f"lab.policy_tools.{tool}").main(arguments))


def _required(name: str, value: str | None) -> str:
    if value is None:
        raise UsageError(failures.USAGE_VALUE_MISSING, f"--{name}")
    return value


policy = Collection("policy", generate, sign, collateral, servtd, verify, explain, hash_image, from_quote)

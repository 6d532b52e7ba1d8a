# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Policies v2 that a lab makes for its MigTDs, or is given: what they say, who gets them, and what is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pytest

from lab.compose import compose_document
from lab.engines.process import migtd_arguments
from lab.errors import EngineError, UsageError
from lab.labfile import LabFile, default_lab, default_rebinding_lab, parse_lab_file
from lab.plan import ResolvedLab, resolve
from lab.policy_chains import POLICY, make_signer
from lab.policy_tools.verifier import verify
from migtd.policy.errors import PolicyError
from migtd.policy.v2.peer import validate_peer_chains
from vmm_stub.quoting.pki import LabPki, push_pki
from vmm_stub.vmm.control.models import NO_DIGEST, ConfigurationVolume, HostConfig

PKI = push_pki(LabPki.from_seed("policy v2"))
OTHER_PKI = push_pki(LabPki.from_seed("another"))
TWO = """\
schema: 1
policy_version: 2
{top}
hosts:
  host-a: {{{a}migtds: {{m: {{}}}}}}
  host-b: {{{b}migtds: {{m: {{}}}}}}
"""


def text(top: str = "", a: str = "", b: str = "") -> str:
    return TWO.format(top=top, a=a and a + ", ", b=b and b + ", ")


def v2(lab: LabFile | None = None, pki: str = PKI, given: Mapping[str, str] | None = None) -> ResolvedLab:
    lab = lab or default_lab().model_copy(update={"policy_version": 2})
    return resolve(lab, name="test", files=given).with_pki(pki)


def configs(resolved: ResolvedLab) -> list[HostConfig]:
    return [host.config for host in resolved.plan().hosts]


def files(config: HostConfig, migtd: int = 0) -> ConfigurationVolume:
    found = config.migtds[migtd].configuration or config.configuration
    assert found is not None
    return found


def verified(volume: ConfigurationVolume):
    assert volume.policy_issuer_chain is not None
    return verify(volume.policy, volume.policy_issuer_chain)


def kind_of(content: str) -> str:
    with pytest.raises(UsageError) as refused:
        resolve(parse_lab_file(content.encode(), "lab.yaml"))
    return refused.value.kind.id


# --- what is made ---


def test_the_policy_that_a_lab_makes_verifies_and_its_td_is_built_for_it():
    for config in configs(v2()):
        volume, migtd = files(config), config.migtds[0]
        policy = verified(volume)

        assert volume.root_ca is None
        assert policy.data.version == "2.0"
        assert policy.data.collaterals.root_key() == LabPki.from_seed("policy v2").root_key
        assert migtd.mrowner == policy.signer_hash.hex()
        assert bytes.fromhex(migtd.mrownerconfig) == (1).to_bytes(4, "little") + bytes(44)


def test_the_same_pki_makes_the_same_policy_and_another_one_another():
    first, again, other = (files(configs(v2(pki=pki))[0]) for pki in (PKI, PKI, OTHER_PKI))

    assert first == again
    assert first.policy != other.policy
    with pytest.raises(PolicyError):
        validate_peer_chains(verified(first), verified(other))


def test_the_pki_is_no_part_of_what_tells_labs_apart_but_how_policies_are_signed_is():
    rotated = parse_lab_file(text(b="policy_v2: {policy_key: second}").encode(), "lab.yaml")
    plain = parse_lab_file(text().encode(), "lab.yaml")

    assert v2(plain).plan().fingerprint == v2(plain, OTHER_PKI).plan().fingerprint
    assert v2(plain).plan().fingerprint == resolve(plain, name="test").plan().fingerprint
    assert v2(plain).plan().fingerprint != v2(rotated).plan().fingerprint


def test_a_rotated_key_has_a_certificate_of_the_same_subject_under_the_same_root():
    pki = LabPki.from_seed("policy v2")
    first, second = (make_signer(pki, POLICY, key, root="first", intermediate=False) for key in ("first", "second"))

    assert first.owner != second.owner
    assert first.chain.split(b"-----BEGIN")[-1] == second.chain.split(b"-----BEGIN")[-1]
    assert first.chain != second.chain


def test_a_migtd_with_a_signature_of_its_own_has_its_own_volume_and_the_others_the_hosts():
    lab = parse_lab_file(
        b"schema: 1\npolicy_version: 2\nhosts:\n  host-a:\n    migtds:\n      old: {}\n      same: {}\n"
        b"      new: {policy_v2: {policy_key: second, policy_svn: 7}}\n",
        "lab.yaml",
    )
    (config,) = configs(v2(lab))

    assert [migtd.configuration is None for migtd in config.migtds] == [True, True, False]
    assert verified(files(config, 2)).data.policy_svn == 7
    assert config.migtds[2].mrownerconfig.startswith("07000000")
    # Each knows the measurements of both, or no rebinding between them could be judged.
    measured = {hashlib.sha384(files(config, at).policy_issuer_chain or b"").digest() for at in (0, 2)}
    assert len(measured) == 2
    assert files(config, 0).policy.count(b'"tdMeasurements"') == files(config, 2).policy.count(b'"tdMeasurements"') == 2


def test_a_migtd_is_told_where_its_issuer_chain_is_and_one_with_policy_v1_where_its_root_is():
    lines = []
    for lab in (default_lab(), default_rebinding_lab()):
        host = v2(lab).plan().hosts[0]
        lines.append(migtd_arguments(host.migtds[0], Path("/channel")))

    assert "/channel/root-ca" in lines[0]
    assert "/channel/policy-issuer-chain" not in lines[0]
    assert "/channel/policy-issuer-chain" in lines[1]
    assert "/channel/root-ca" not in lines[1]


def test_a_host_whose_policies_fit_no_container_is_refused_by_name_before_anything_starts():
    signed = "".join(f"\n      m{n}: {{policy_v2: {{policy_key: k{n}}}}}" for n in range(5))
    lab = parse_lab_file(f"schema: 1\npolicy_version: 2\nhosts:\n  host-a:\n    migtds:{signed}\n".encode(), "lab.yaml")
    images = dict.fromkeys(("source", "destination", "vmm-stub"), "image")

    with pytest.raises(EngineError) as refused:
        compose_document(v2(lab).plan(), images, Path(__file__).parents[2])

    assert refused.value.kind.id == "LAB-ENGINE-REFUSED"
    assert "host-a" in refused.value.detail


def test_the_outcome_says_which_policy_version_it_was():
    assert v2().labels("process")["policy_version"] == 2
    assert resolve(default_lab(), name="test").labels("process")["policy_version"] == 1


def test_a_remembered_lab_has_the_same_policies():
    lab = v2()
    again = ResolvedLab.from_text(lab.to_text().encode())

    assert again is not None
    assert configs(again) == configs(lab)


# --- what is given ---


@pytest.fixture
def signed(tmp_path: Path) -> dict[str, str]:
    """Flags for a policy and its chain, as a lab made them once."""
    volume = files(configs(v2())[0])
    contents = {"policy_file": volume.policy, "policy_issuer_chain_file": volume.policy_issuer_chain or b""}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return {name: str(tmp_path / name) for name in contents}


def test_a_policy_that_is_given_is_used_as_it_is_and_its_owner_provisioned(signed: dict[str, str]):
    made, given = configs(v2())[1], configs(v2(given=signed))[1]

    assert files(given).policy == Path(signed["policy_file"]).read_bytes()
    assert given.migtds[0].mrowner == made.migtds[0].mrowner


def test_a_policy_that_does_not_verify_is_left_for_its_migtd_to_refuse(signed: dict[str, str]):
    file = Path(signed["policy_file"])
    file.write_bytes(file.read_bytes().replace(b'"policySvn":1', b'"policySvn":2'))
    given = configs(v2(given=signed))[0]

    assert files(given).policy == file.read_bytes()
    assert given.migtds[0].mrowner == NO_DIGEST


@pytest.mark.parametrize("missing", ["policy_file", "policy_issuer_chain_file"])
def test_a_policy_without_chain_and_a_chain_without_policy_are_refused(signed: dict[str, str], missing: str):
    del signed[missing]

    with pytest.raises(UsageError) as refused:
        v2(given=signed)

    assert refused.value.kind.id == "LAB-EVIDENCE-INCOMPLETE"


def test_what_nobody_would_look_at_is_refused(signed: dict[str, str]):
    chain, policy = signed["policy_issuer_chain_file"], signed["policy_file"]
    both = f"policy_file: {policy}\npolicy_issuer_chain_file: {chain}"

    assert kind_of(text(top=both, a="policy_v2: {}")) == "LAB-EVIDENCE-UNUSED"
    assert kind_of(text(top=f"root_ca_file: {chain}")) == "LAB-EVIDENCE-UNUSED"
    version_1 = text(b="policy_v2: {}").replace("policy_version: 2", "policy_version: 1")
    assert kind_of(version_1) == "LAB-EVIDENCE-UNUSED"
    with_chain = text(top=both).replace("policy_version: 2", "policy_version: 1")
    assert kind_of(with_chain) == "LAB-EVIDENCE-UNUSED"


# --- rebindings in a lab file ---


def test_rebindings_need_policy_version_2():
    rebinding = (
        "schema: 1\nhosts: {host-a: {migtds: {old: {}, new: {}}}}\nrebindings: [{host: host-a, old: old, new: %s}]"
    )

    assert kind_of(rebinding % "new") == "LAB-USAGE-VALUE-INVALID"


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        ("{host: host-c, old: m, new: n}", "there is no host 'host-c'"),
        ("{host: host-a, old: m, new: other}", "host 'host-a' has no MigTD 'other'"),
        ("{host: host-a, old: m, new: m}", "old and new are the same MigTD"),
        ("{host: host-a, old: m}", "this key is missing"),
    ],
)
def test_a_rebinding_of_what_there_is_not_is_told_at_its_line(entry: str, fault: str):
    with pytest.raises(UsageError) as refused:
        parse_lab_file(text(top=f"rebindings: [{entry}]").encode(), "lab.yaml")

    assert refused.value.kind.id == "LAB-FILE-INVALID"
    assert fault in refused.value.detail
    assert "lab.yaml:3" in refused.value.detail

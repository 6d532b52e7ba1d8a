# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Quotes of a lab's machines under the collateral of its hosts: the verdict is what the settings say."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from migtd.attestation.quote.errors import QuoteError
from migtd.attestation.quote.verify import verify_quote
from vmm_stub.quoting.errors import QuotingError
from vmm_stub.quoting.maker import V4, V5_TDX_1_0, V5_TDX_1_5
from vmm_stub.quoting.material import material_for, platform_for, pull_material, push_material
from vmm_stub.quoting.settings import ComponentStatus, PlatformSettings, TcbStatus
from vmm_stub.testing_quoting import PKI, REPORT_DATA, machine


def verified(quoted, judge, collateral=None):
    """The quote of one machine, judged with the collateral of another's host."""
    return verify_quote(quoted.quote(), PKI.root_key, collateral or judge.material.collateral)


def refusal(quoted, judge):
    with pytest.raises(QuoteError) as refused:
        verified(quoted, judge)
    return refused.value.kind.id


@pytest.mark.parametrize("shape", [V4, V5_TDX_1_0, V5_TDX_1_5], ids=["v4", "v5-1.0", "v5-1.5"])
def test_a_quote_of_every_format_verifies_under_its_own_collateral(shape):
    own = machine()
    result = verify_quote(own.quote(shape), PKI.root_key, own.material.collateral)
    assert (result.converged_status, result.advisories) == ("UpToDate", ())
    assert result.fmspc == bytes.fromhex("4D4C41420000")
    assert result.record[520:584] == REPORT_DATA
    assert result.record[16:64] == own.platform.mrseam


def test_every_status_of_a_machine_is_what_its_peers_see():
    lab = [PlatformSettings(machine=status.name, tcb_status=status) for status in TcbStatus]
    machines = {settings.tcb_status: machine(settings, lab) for settings in lab}
    judge = machines[TcbStatus.UpToDate]
    for status, quoted in machines.items():
        if status is TcbStatus.Revoked:
            assert refusal(quoted, judge) == "MIGTD-QUOTE-TCB-REVOKED"
        elif status is TcbStatus.ConfigurationAndSWHardeningNeeded:
            # 33 characters: no record has room for them (policy.md 4.2)
            assert refusal(quoted, judge) == "MIGTD-QUOTE-STATUS-TOO-LONG"
        else:
            assert verified(quoted, judge).platform.status == status
            assert verified(judge, quoted).platform.status == "UpToDate"


def test_date_and_advisories_of_a_machine_are_what_its_peers_see():
    date = datetime(2023, 8, 9, tzinfo=UTC)
    old = PlatformSettings(
        machine="old", tcb_status=TcbStatus.OutOfDate, tcb_date=date, advisory_ids=("INTEL-SA-00001",)
    )
    result = verified(machine(old), machine(machine="judge", others=[old]))
    assert result.advisories == ("INTEL-SA-00001",)
    assert int.from_bytes(result.record[774:782], "little") == int(date.timestamp())


def test_machines_that_differ_in_date_only_get_their_own():
    dates = [datetime(year, 5, 14, tzinfo=UTC) for year in (2022, 2023, 2024)]
    lab = [PlatformSettings(machine=str(date.year), tcb_date=date) for date in dates]
    for settings in lab:
        result = verified(machine(settings), machine(machine="judge", others=lab))
        assert int.from_bytes(result.record[774:782], "little") == int(settings.tcb_date.timestamp())


@pytest.mark.parametrize(
    ("part", "revoked"), [("module", "MIGTD-QUOTE-TDX-MODULE-REVOKED"), ("qe", "MIGTD-QUOTE-QE-REVOKED")]
)
def test_module_and_qe_have_a_status_of_their_own(part, revoked):
    lab = [PlatformSettings(machine=status.name, **{f"{part}_status": status}) for status in ComponentStatus]
    up_to_date, out_of_date, gone = (machine(settings, lab) for settings in lab)
    assert getattr(verified(up_to_date, out_of_date), part).status == "UpToDate"
    result = verified(out_of_date, up_to_date)
    assert (getattr(result, part).status, result.platform.status) == ("OutOfDate", "UpToDate")
    assert result.converged_status == "OutOfDate"
    assert refusal(gone, up_to_date) == revoked


def test_a_revoked_pck_is_refused_by_all_and_takes_nobody_with_it():
    gone = PlatformSettings(machine="gone", pck_revoked=True)
    kept = PlatformSettings(machine="kept")
    judge = machine(kept, [gone])
    assert refusal(machine(gone, [kept]), judge) == "MIGTD-QUOTE-PCK-REVOKED"
    assert verified(judge, machine(gone, [kept])).platform.status == "UpToDate"


def test_a_quote_of_another_fmspc_needs_the_collateral_of_that_fmspc():
    other = PlatformSettings(machine="other", fmspc=bytes(6))
    judge = machine(machine="judge", others=[other])
    quoted = machine(other)
    assert refusal(quoted, judge) == "MIGTD-QUOTE-FMSPC-MISMATCH"
    named = judge.material.collateral_for("000000000000")
    assert verified(quoted, judge, named).fmspc == bytes(6)
    assert judge.material.collateral_for("FFFFFFFFFFFF") is None


def test_a_quote_of_another_lab_is_refused():
    with pytest.raises(QuoteError) as refused:
        verify_quote(machine().quote(), b"\4" + bytes(64), machine().material.collateral)
    assert refused.value.kind.id in {"MIGTD-QUOTE-ROOT-UNTRUSTED", "MIGTD-COLLATERAL-ROOT-UNTRUSTED"}


def test_a_machine_without_tdx_module_major_version_is_judged_by_its_components():
    settings = PlatformSettings(tee_tcb_svn=bytes.fromhex("04000200000000000000000000000000"))
    own = machine(settings)
    result = verified(own, own)
    assert (result.module, result.platform.status) == (None, "UpToDate")


def test_the_host_that_serves_collateral_says_how_old_it_is():
    issued, expires = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 2, 1, tzinfo=UTC)
    old = machine(machine="stale", collateral_issued=issued, collateral_expires=expires)
    result = verified(old, old)
    assert result.earliest_expiration == int(expires.timestamp())
    assert result.collateral_expired(int(expires.timestamp()))
    assert not verified(old, machine()).collateral_expired(int(PKI.issued.timestamp()))


def test_collateral_must_not_expire_before_it_was_issued():
    issued = datetime(2024, 1, 1, tzinfo=UTC)
    with pytest.raises(QuotingError) as refused:
        machine(collateral_issued=issued, collateral_expires=issued)
    assert refused.value.kind.id == "VMM-QUOTING-CONFLICT"


@pytest.mark.parametrize(
    ("first", "second", "named"),
    [
        ({"cpusvn": bytes(16)}, {"cpusvn": bytes(16), "tcb_status": "OutOfDate"}, "tcb_status"),
        # the TDX module's SVN and major version are not the level's to judge
        (
            {"cpusvn": bytes(16), "tee_tcb_svn": b"\7\1" + bytes(14)},
            {"cpusvn": bytes(16), "tee_tcb_svn": b"\6\1" + bytes(14), "tcb_status": "OutOfDate"},
            "tcb_status",
        ),
        ({}, {"module_date": "2020-01-01T00:00:00Z"}, "module_date"),
        ({}, {"qe_date": "2020-01-01T00:00:00Z"}, "qe_date"),
        ({}, {"pceid": b"\0\1"}, "pceid"),
        ({}, {"mrsignerseam": b"\1" * 48}, "mrsignerseam"),
    ],
)
def test_machines_that_contradict_each_other_are_named(first, second, named):
    one, other = (
        PlatformSettings.model_validate({"machine": name, **changes}) for name, changes in (("a", first), ("b", second))
    )
    with pytest.raises(QuotingError) as refused:
        material_for(PKI, one, [other])
    assert refused.value.kind.id == "VMM-QUOTING-CONFLICT"
    assert named in refused.value.detail
    assert "of a and b" in refused.value.detail


def test_material_survives_its_way_to_a_host():
    own = machine(machine="a", others=[PlatformSettings(machine="b", fmspc=bytes(6))], mrseam=b"\7" * 48)
    text = push_material(own.material)
    assert len(text) < 64 << 10
    again = pull_material(text)
    assert again == own.material
    assert platform_for(again, own.platform.report_key) == own.platform


def test_no_secret_of_a_material_is_shown():
    material = machine().material
    for secret in (material.pck_scalar, material.attestation_scalar):
        assert secret.hex() not in repr(material)
        assert repr(secret) not in repr(material)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda sent: sent.update(pck_key="00" * 32), "private key"),
        (lambda sent: sent.update(attestation_key="ff" * 32), "private key"),
        (lambda sent: sent.update(pck_key="00"), "pck_key"),
        (lambda sent: sent.update(tcb_infos={}), "FMSPC"),
        (lambda sent: sent.pop("qe_identity"), "qe_identity"),
    ],
)
def test_a_damaged_material_is_refused_and_not_shown(change, named):
    sent = json.loads(push_material(machine().material))
    secret = sent["attestation_key"]
    change(sent)
    with pytest.raises(QuotingError) as refused:
        pull_material(json.dumps(sent))
    assert refused.value.kind.id == "VMM-QUOTING-MATERIAL"
    assert named in refused.value.detail
    assert secret not in str(refused.value)


def test_collateral_of_two_machines_differs_in_nothing_that_their_peers_see():
    first, second = PlatformSettings(machine="a"), PlatformSettings(machine="b", tcb_status=TcbStatus.OutOfDate)
    one, other = material_for(PKI, first, [second]), material_for(PKI, second, [first])
    assert replace(one.collateral, tcb_info=b"") == replace(other.collateral, tcb_info=b"")
    assert json.loads(one.collateral.tcb_info)["tcbInfo"] == json.loads(other.collateral.tcb_info)["tcbInfo"]

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The codecs of Service.MigTD, ghci-ratls.md 3.1 and 3.2."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migtd.errors import (
    InvalidParameter,
    MigrationResult,
    MigTDError,
    UnsupportedOperationError,
    VmmInternalError,
)
from migtd.guest import ghci
from migtd.guest.ghci import (
    EnableLogArea,
    GetMigtdData,
    GetTdReport,
    LogAreaRange,
    Operation,
    PolicyVersion,
    StartMigration,
    StartRebinding,
)
from migtd.guest.interfaces import TargetTd

U64 = st.integers(0, 2**64 - 1)
TARGETS = st.builds(TargetTd, U64, st.tuples(U64, U64, U64, U64))
REQUESTS = st.one_of(
    st.builds(StartMigration, U64, st.booleans(), TARGETS),
    st.builds(GetTdReport, U64, st.none() | st.binary(min_size=64, max_size=64)),
    st.builds(EnableLogArea, U64, st.integers(0, 255)),
)
TDINFOS = st.none() | st.binary(min_size=512, max_size=512)
STARTS_V2 = st.one_of(
    st.builds(StartMigration, U64, st.booleans(), TARGETS, TDINFOS),
    st.builds(StartRebinding, U64, st.booleans(), TARGETS, TDINFOS),
)
REQUESTS_V2 = st.one_of(
    REQUESTS, STARTS_V2, st.builds(GetMigtdData, U64, st.none() | st.binary(min_size=64, max_size=64))
)
V2 = PolicyVersion.V2
RESERVED = {Operation.StartMigration: range(10, 16), Operation.EnableLogArea: range(9, 16)}


@given(REQUESTS)
def test_requests_come_back_as_they_were(request):
    assert ghci.pull_request(*ghci.push_request(request)) == request


@given(REQUESTS)
def test_every_request_starts_with_its_id(request):
    assert ghci.pull_request_id(ghci.push_request(request)[1]) == request.request_id


@pytest.mark.parametrize(
    ("request_", "size"),
    [
        (StartMigration(1, is_source=True, target=TargetTd(2, (3, 4, 5, 6))), 56),
        (GetTdReport(1), 8),
        (GetTdReport(1, bytes(64)), 72),
        (EnableLogArea(1, 3), 16),
    ],
)
def test_requests_have_the_sizes_of_the_specification(request_, size):
    assert len(ghci.push_request(request_)[1]) == size


@given(REQUESTS, st.data())
def test_a_reserved_byte_that_is_not_zero_is_refused(request, data):
    operation, payload = ghci.push_request(request)
    if operation not in RESERVED:
        return
    broken = bytearray(payload)
    broken[data.draw(st.sampled_from(RESERVED[operation]))] = data.draw(st.integers(1, 255))
    with pytest.raises(InvalidParameter):
        ghci.pull_request(operation, bytes(broken))


@given(REQUESTS, st.binary(min_size=1, max_size=80), st.data())
def test_a_request_of_another_size_is_refused(request, extra, data):
    operation, payload = ghci.push_request(request)
    cut = data.draw(st.integers(0, len(payload) - 1))
    for wrong in (payload + extra, payload[:cut]):
        if operation is Operation.GetTDReport and len(wrong) in (8, 72):
            continue
        with pytest.raises(InvalidParameter):
            ghci.pull_request(operation, wrong)


@given(U64, st.booleans(), TARGETS, st.integers(2, 255))
def test_a_role_that_is_neither_is_refused(request_id, is_source, target, role):
    payload = bytearray(ghci.push_request(StartMigration(request_id, is_source, target))[1])
    payload[8] = role
    with pytest.raises(InvalidParameter):
        ghci.pull_request(Operation.StartMigration, bytes(payload))


@given(U64, st.booleans(), TARGETS, st.integers(1, 255), st.booleans())
def test_init_data_is_refused_with_policy_v1(request_id, is_source, target, flag, with_data):
    payload = bytearray(ghci.push_request(StartMigration(request_id, is_source, target))[1])
    payload[9] = flag
    with pytest.raises(InvalidParameter):
        ghci.pull_request(Operation.StartMigration, bytes(payload) + bytes(512 if with_data else 0))


@given(st.sampled_from([Operation.StartRebinding, Operation.GetMigtdData]), st.binary(max_size=80))
def test_operations_of_policy_v2_are_not_served(operation, payload):
    with pytest.raises(UnsupportedOperationError):
        ghci.pull_request(operation, payload)


@given(st.sampled_from(Operation), st.binary(max_size=600))
def test_any_payload_gives_a_request_or_a_typed_error(operation, payload):
    with contextlib.suppress(MigTDError):
        ghci.pull_request(operation, payload)


@given(U64 | st.integers(0, 9).map(lambda operation: 1 | operation << 8))
def test_any_status_gives_an_operation_or_the_error_for_it(status):
    operation = status >> 8 & 0xFF
    try:
        found = ghci.pull_operation(status)
    except VmmInternalError:
        assert status & 0xFF != 1
    except UnsupportedOperationError:
        assert status & 0xFF == 1
        assert operation not in set(Operation)
    else:
        assert (status & 0xFF, operation) == (1, found)


@given(st.sampled_from(Operation))
def test_every_operation_is_read_from_its_status(operation):
    assert ghci.pull_operation(1 | operation << 8) is operation


@given(st.binary(max_size=20))
def test_an_id_is_read_where_there_are_eight_bytes(payload):
    assert (ghci.pull_request_id(payload) is None) is (len(payload) < 8)


@given(st.lists(st.builds(LogAreaRange, U64, U64), max_size=8))
def test_log_area_answers_come_back_as_they_were(areas):
    assert ghci.pull_log_area_answer(ghci.push_log_area_answer(areas)) == areas


@given(st.binary(max_size=100))
def test_any_log_area_answer_gives_ranges_or_the_typed_error(data):
    with contextlib.suppress(InvalidParameter):
        assert ghci.push_log_area_answer(ghci.pull_log_area_answer(data)) == data


@given(st.sampled_from(MigrationResult))
def test_results_come_back_through_the_status_register(result):
    register = ghci.push_report_status(result)
    assert (register & 0xFF != 0) is (result is not MigrationResult.Success)
    assert ghci.pull_report_status(register) is result


@given(U64 | st.integers(0, 0xFFFF))
def test_any_status_register_gives_a_result_or_the_typed_error(register):
    with contextlib.suppress(InvalidParameter):
        assert ghci.push_report_status(ghci.pull_report_status(register)) == register


@given(REQUESTS_V2)
def test_with_policy_v2_all_requests_come_back_as_they_were(request):
    operation, payload = ghci.push_request(request)
    assert ghci.pull_request(operation, payload, V2) == request
    assert ghci.pull_request_id(payload) == request.request_id


@pytest.mark.parametrize(
    ("request_", "operation", "size"),
    [
        (StartMigration(1, is_source=True, target=TargetTd(2, (3, 4, 5, 6)), initial_tdinfo=bytes(512)), 1, 568),
        (StartRebinding(1, is_source=True, target=TargetTd(2, (3, 4, 5, 6))), 2, 56),
        (StartRebinding(1, is_source=True, target=TargetTd(2, (3, 4, 5, 6)), initial_tdinfo=bytes(512)), 2, 568),
        (GetMigtdData(1), 5, 8),
        (GetMigtdData(1, bytes(64)), 5, 72),
    ],
)
def test_requests_of_policy_v2_have_the_numbers_and_sizes_of_the_specification(request_, operation, size):
    number, payload = ghci.push_request(request_)
    assert (int(number), len(payload)) == (operation, size)


@given(STARTS_V2, st.binary(min_size=1, max_size=600), st.data())
def test_a_start_request_whose_size_and_flag_disagree_is_refused(request, extra, data):
    operation, payload = ghci.push_request(request)
    flipped = bytearray(payload)
    flipped[9] ^= 1
    cut = data.draw(st.integers(0, len(payload) - 1))
    for wrong in (bytes(flipped), payload + extra, payload[:cut]):
        with pytest.raises(InvalidParameter):
            ghci.pull_request(operation, wrong, V2)


@given(STARTS_V2, st.sampled_from([*range(8, 16)]), st.integers(2, 255))
def test_a_start_request_with_another_flag_or_a_reserved_byte_is_refused(request, at, value):
    operation, payload = ghci.push_request(request)
    broken = bytearray(payload)
    broken[at] = value
    with pytest.raises(InvalidParameter):
        ghci.pull_request(operation, bytes(broken), V2)


@given(STARTS_V2)
def test_init_data_is_served_with_policy_v2_only(request):
    operation, payload = ghci.push_request(request)
    if operation is Operation.StartRebinding:
        with pytest.raises(UnsupportedOperationError):
            ghci.pull_request(operation, payload)
    elif request.initial_tdinfo is not None:
        with pytest.raises(InvalidParameter):
            ghci.pull_request(operation, payload)
    else:
        assert ghci.pull_request(operation, payload) == request


@given(st.sampled_from(Operation), st.binary(max_size=600))
def test_with_policy_v2_any_payload_gives_the_request_that_it_encodes_or_invalid_parameter(operation, payload):
    with contextlib.suppress(InvalidParameter):
        assert ghci.push_request(ghci.pull_request(operation, payload, V2)) == (operation, payload)

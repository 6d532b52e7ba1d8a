# SPDX-License-Identifier: BSD-2-Clause-Patent
"""RA-TLS over links that cut, join and corrupt, and the certificate reader on hostile bytes."""

from __future__ import annotations

from collections.abc import Iterable

from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from migtd import failures
from migtd.attestation.accept_all import AcceptAll
from migtd.attestation.mode import Evidence
from migtd.errors import NetworkError, SecureSessionError
from migtd.migration.data import ExchangeInformation
from migtd.ratls.certificate import PUBLIC_POINT_SIZE, make_certificate, migration_extensions
from migtd.ratls.reader import PeerCertificate, pull_certificate
from migtd.ratls.session import RaTls
from migtd.ratls.testing import ConnectionPair, Cut, Side, make_side
from migtd.ratls.tls import RecordCutter

SOURCE = ExchangeInformation(bytes(range(32)), 1, 2)
DESTINATION = ExchangeInformation(bytes(range(100, 132)), 0, 3)
EVIDENCE = Evidence(bytes(822), b"log\0")
CERTIFICATE = make_certificate(ec.generate_private_key(ec.SECP384R1()), migration_extensions(EVIDENCE))
APPLICATION_DATA = 23
HANDSHAKES = settings(max_examples=40, deadline=None)
READS = settings(max_examples=400, deadline=None)


def make_pair(evidence: Evidence = EVIDENCE) -> ConnectionPair:
    mode = AcceptAll(lambda: b"log\0")
    return ConnectionPair(
        make_side(RaTls(), mode, evidence, SOURCE, is_source=True),
        make_side(RaTls(), mode, EVIDENCE, DESTINATION, is_source=False),
    )


def cutter(sizes: list[int]) -> Cut:
    def cut(data: bytes) -> Iterable[bytes]:
        position = turn = 0
        while position < len(data):
            size = sizes[turn % len(sizes)]
            yield data[position : position + size]
            position, turn = position + size, turn + 1

    return cut


def history(side: Side) -> tuple[object, ...]:
    return side.events[1:], side.checks, side.error


PLAIN = make_pair().run()
SIZES = st.lists(st.integers(1, 40) | st.integers(1, 3000), min_size=1, max_size=20)


@HANDSHAKES
@given(SIZES, SIZES)
def test_any_cutting_of_the_bytes_gives_the_same_events(to_destination: list[int], to_source: list[int]) -> None:
    done = make_pair().run(cutter(to_destination), cutter(to_source))
    assert history(done.source) == history(PLAIN.source)
    assert history(done.destination) == history(PLAIN.destination)


def test_one_byte_at_a_time_gives_the_same_events() -> None:
    done = make_pair().run(cutter([1]), cutter([1]))
    assert history(done.source) == history(PLAIN.source)
    assert history(done.destination) == history(PLAIN.destination)


@HANDSHAKES
@given(SIZES)
def test_a_refused_peer_is_refused_however_the_bytes_are_cut(sizes: list[int]) -> None:
    pair = make_pair(Evidence(b"", b"")).run(cutter(sizes), cutter(sizes))
    assert isinstance(pair.destination.error, SecureSessionError)
    assert pair.destination.error.kind is failures.CERTIFICATE_NO_EVIDENCE
    assert isinstance(pair.source.error, SecureSessionError)
    assert pair.source.error.kind is failures.TLS_ALERT
    assert pair.source.information is None
    assert pair.destination.information is None


@HANDSHAKES
@given(SIZES)
def test_a_forged_flight_is_refused_however_the_bytes_are_cut(sizes: list[int]) -> None:
    pair = make_pair().run(to_source=forged_finish(sizes))
    assert isinstance(pair.source.error, SecureSessionError)
    assert pair.source.error.kind is failures.TLS_PROTOCOL
    assert isinstance(pair.destination.error, SecureSessionError)
    assert pair.destination.error.kind is failures.TLS_ALERT


def forged_finish(sizes: list[int]) -> Cut:
    """Cuts, and changes the last byte of each flight."""

    def cut(data: bytes) -> Iterable[bytes]:
        yield from cutter(sizes)(data[:-1] + bytes((data[-1] ^ 1,)))

    return cut


def records(data: bytes) -> list[bytes]:
    """The TLS records that a flight consists of."""
    found = []
    while data:
        size = 5 + int.from_bytes(data[3:5])
        found.append(data[:size])
        data = data[size:]
    return found


def corruption(index: int, offset: int, change: int) -> Cut:
    """Changes one byte of the record with this number, counted over the whole stream."""
    seen = 0

    def cut(data: bytes) -> Iterable[bytes]:
        nonlocal seen
        for record in records(data):
            position = offset % len(record)
            # The version in the header of a plain record means nothing (RFC 8446 5.1) and is not protected.
            harmless = position in (1, 2) and record[0] != APPLICATION_DATA
            if seen == index and not harmless:
                yield record[:position] + bytes((record[position] ^ change,)) + record[position + 1 :]
            else:
                yield record
            seen += 1

    return cut


def assert_sound(pair: ConnectionPair) -> None:
    """Nobody has wrong information, not both have any, and whoever failed says so with a proper error."""
    assert pair.source.information in (None, DESTINATION)
    assert pair.destination.information in (None, SOURCE)
    assert pair.source.information is None or pair.destination.information is None
    for side in (pair.source, pair.destination):
        assert side.ended
        assert side.error is None or isinstance(side.error, SecureSessionError | NetworkError)


TO_DESTINATION = len(records(PLAIN.source.sent))
TO_SOURCE = len(records(PLAIN.destination.sent))


@settings(HANDSHAKES, max_examples=80)
@given(
    index=st.integers(0, 63),
    offset=st.integers(0, 4) | st.integers(5, 1 << 16),
    change=st.integers(1, 255),
    forward=st.booleans(),
)
def test_a_changed_byte_in_any_record_never_ends_in_success_on_both_sides(
    index: int, offset: int, change: int, *, forward: bool
) -> None:
    number = index % (TO_DESTINATION if forward else TO_SOURCE)
    plain_record = records((PLAIN.source if forward else PLAIN.destination).sent)[number]
    if plain_record[0] != APPLICATION_DATA and offset % len(plain_record) in (1, 2):
        offset += 2
    corrupt = corruption(number, offset, change)
    pair = make_pair()
    pair.run(to_destination=corrupt) if forward else pair.run(to_source=corrupt)
    assert_sound(pair)


@HANDSHAKES
@given(data=st.binary(min_size=1, max_size=400), is_source=st.booleans())
def test_arbitrary_bytes_instead_of_a_peer_give_a_typed_error(data: bytes, *, is_source: bool) -> None:
    pair = make_pair()
    side = pair.source if is_source else pair.destination
    side.start()
    side.receive(data)
    side.receive(b"")
    assert isinstance(side.error, SecureSessionError | NetworkError)
    assert side.information is None


@READS
@given(st.binary(max_size=300), st.lists(st.integers(1, 9), min_size=1))
def test_the_record_cutter_loses_nothing_and_never_reaches_over_a_record(stream: bytes, sizes: list[int]) -> None:
    parts = RecordCutter()
    whole = b"".join(b"\x17\x03\x03" + len(stream).to_bytes(2) + stream for _ in range(3))
    pieces = [piece for portion in cutter(sizes)(whole) for piece in parts.cut(portion)]
    assert b"".join(pieces) == whole
    ends = {(5 + len(stream)) * n for n in range(1, 4)}
    position = 0
    for piece in pieces:
        assert not any(position < end < position + len(piece) for end in ends)
        position += len(piece)


def assert_typed(data: bytes) -> None:
    try:
        certificate = pull_certificate(data)
    except SecureSessionError as error:
        assert error.kind is failures.CERTIFICATE_MALFORMED  # noqa: PT017 - a result is as good as an error here
    else:
        assert isinstance(certificate, PeerCertificate)
        assert len(certificate.public_point) == PUBLIC_POINT_SIZE
        assert certificate.tbs in data


@READS
@given(st.binary(max_size=400))
def test_arbitrary_bytes_give_a_certificate_or_a_typed_error(data: bytes) -> None:
    assert_typed(data)


@READS
@given(st.integers(0, len(CERTIFICATE)), st.integers(0, 12), st.binary(max_size=12))
def test_a_damaged_certificate_gives_a_certificate_or_a_typed_error(start: int, length: int, new: bytes) -> None:
    assert_typed(CERTIFICATE[:start] + new + CERTIFICATE[start + length :])


TAGS = st.sampled_from([0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x0C, 0x17, 0x30, 0x31, 0xA0, 0xA3, 0x1F, 0x80])
TREES = st.recursive(
    st.tuples(TAGS, st.binary(max_size=20)).map(lambda leaf: bytes((leaf[0], len(leaf[1]))) + leaf[1]),
    lambda children: st.tuples(TAGS, st.lists(children, max_size=8)).map(
        lambda node: bytes((node[0], 0x82)) + len(b"".join(node[1])).to_bytes(2) + b"".join(node[1])
    ),
    max_leaves=30,
)


@READS
@given(TREES)
def test_any_tree_of_elements_gives_a_certificate_or_a_typed_error(data: bytes) -> None:
    assert_typed(data)


def test_the_worst_inputs_that_fit_are_read_in_bounded_time() -> None:
    for unit in (b"\x05\x00", b"\x30\x80", b"\x1f\xff", b"\x06\xff", b"\x30\x82"):
        filling = unit * 51_000
        for head in (b"", b"\x30\x83\x01\x8e\x00"):
            assert_typed((head + filling)[:102_400])

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The bridge between a pair of pipes and the control socket: every byte both ways, and each of its ends."""

import os
import socket
import threading

import pytest

from vmm_stub.__main__ import main
from vmm_stub.vmm.control.stdio import ControlUnreachable, bridge

DATA = bytes(range(256)) * 4096


@pytest.fixture
def path(tmp_path):
    return tmp_path / "control.sock"


@pytest.fixture
def listening(path):
    with socket.socket(socket.AF_UNIX) as listening:
        listening.settimeout(10)
        listening.bind(str(path))
        listening.listen()
        yield listening


class Bridge:
    """A bridge in a thread between two pipes: `write` goes in, `read` is what comes out."""

    def __init__(self, path, **options):
        source, self.write = os.pipe()
        self.read, sink = os.pipe()
        self._ends = [source, sink]
        self._open = {self.read, self.write, source, sink}
        self._thread = threading.Thread(target=bridge, args=(path, source, sink), kwargs=options, daemon=True)
        self._thread.start()

    def send(self, data):
        view = memoryview(data)
        while view:
            view = view[os.write(self.write, view) :]

    def receive(self, size):
        data = b""
        while len(data) < size and (part := os.read(self.read, size - len(data))):
            data += part
        return data

    def close(self, descriptor):
        self._open.discard(descriptor)
        os.close(descriptor)

    def ended(self):
        self._thread.join(10)
        return not self._thread.is_alive()

    def clean(self):
        for descriptor in set(self._open):
            self.close(descriptor)


@pytest.fixture
def joined(path, listening):
    """A running bridge and the host's end of its connection."""
    made = Bridge(path)
    host, _ = listening.accept()
    host.settimeout(10)
    yield made, host
    host.close()
    assert made.ended()
    made.clean()


def receive(host, size):
    data = b""
    while len(data) < size and (part := host.recv(size - len(data))):
        data += part
    return data


def test_every_byte_goes_both_ways_at_once(joined):
    made, host = joined
    sending = [threading.Thread(target=send, args=(DATA,)) for send in (made.send, host.sendall)]
    found: list[bytes] = []
    receiving = threading.Thread(target=lambda: found.append(made.receive(len(DATA))))
    for thread in (*sending, receiving):
        thread.start()
    assert receive(host, len(DATA)) == DATA
    for thread in (*sending, receiving):
        thread.join(10)
    assert found == [DATA]


def test_the_end_of_the_input_ends_one_half_and_the_answer_still_comes(joined):
    made, host = joined
    made.send(b"question")
    made.close(made.write)
    assert receive(host, 8) == b"question"
    assert host.recv(1) == b""
    host.sendall(b"answer")
    assert made.receive(6) == b"answer"


def test_the_end_of_the_host_is_the_end_of_the_bridge(joined):
    made, host = joined
    host.sendall(b"last words")
    host.close()
    assert made.ended()
    assert made.receive(10) == b"last words"


def test_a_reader_that_is_gone_ends_the_bridge(joined):
    made, host = joined
    made.close(made.read)
    host.sendall(b"x")
    assert made.ended()
    assert host.recv(1) == b""


def test_a_host_that_opens_its_socket_within_the_time_is_reached(path):
    made = Bridge(path, wait=60)
    with socket.socket(socket.AF_UNIX) as host:
        host.settimeout(10)
        host.bind(str(path))
        # first bound, then nobody listens: both are "not yet"
        host.listen()
        connection, _ = host.accept()
        connection.sendall(b"here")
        assert made.receive(4) == b"here"
        connection.close()
    assert made.ended()
    made.clean()


def test_a_host_that_never_opens_it_is_a_typed_error(path):
    for wait in (0.0, 0.03):
        with pytest.raises(ControlUnreachable) as unreachable:
            bridge(path, 0, 1, wait=wait)
        assert unreachable.value.kind.id == "VMM-CONTROL-LOST"
        assert str(path) in unreachable.value.detail


def test_a_path_that_can_be_no_socket_is_not_waited_for(tmp_path):
    with pytest.raises(ControlUnreachable):
        bridge(tmp_path / ("x" * 200), 0, 1, wait=3600)


@pytest.mark.parametrize("seconds", ["-1", "nan", "inf", "soon"])
def test_a_wait_that_is_no_time_is_wrong_usage(path, seconds, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["control-stdio", "--control", str(path), f"--wait={seconds}"])
    assert ended.value.code == 2
    assert "--wait" in capsys.readouterr().err

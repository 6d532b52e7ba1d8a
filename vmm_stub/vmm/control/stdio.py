# SPDX-License-Identifier: BSD-2-Clause-Patent
"""`vmm-stub control-stdio`: standard input and output joined to the control API's socket, byte for byte.

So a lab reaches a host inside a container by `docker exec -i`, on any machine that its engine reaches.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from pathlib import Path
from typing import Final

from migtd.errors import LabFailure
from vmm_stub import failures

_CHUNK: Final = 64 << 10
_NOT_YET: Final = {errno.ENOENT, errno.ECONNREFUSED}
_POLL: Final = 0.02


class ControlUnreachable(LabFailure):
    """Nobody serves the control socket (VMM-CONTROL-LOST)."""


def bridge(path: Path, source: int, sink: int, *, wait: float = 0.0) -> None:
    """Join the file descriptors to the socket at `path`; blocks until the host ends the connection.

    `wait` is how many seconds a host that was just started has to open the socket. The end of `source` ends our half of
    the connection; the host then sends what it has and ends the other. So does an error on either. Raises
    ControlUnreachable (VMM-CONTROL-LOST) if the socket cannot be reached.
    """
    with _connect(path, time.monotonic() + wait) as connection:
        # A thread for each direction: neither may wait for the other. This one dies with the process.
        threading.Thread(target=_upstream, args=(source, connection), daemon=True).start()
        try:
            while data := connection.recv(_CHUNK):
                _write_all(sink, data)
        except OSError:
            return  # the reader of `sink` or the host is gone, which is one of the two ends


def _connect(path: Path, limit: float) -> socket.socket:
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(str(path))
        except OSError as error:
            connection.close()
            if error.errno not in _NOT_YET or time.monotonic() >= limit:
                raise ControlUnreachable(failures.CONTROL_LOST, f"{path}: {error.strerror or error}") from error
            # A file system offers no event for "somebody listens here now" that costs less than asking again.
            time.sleep(_POLL)
        else:
            return connection


def _upstream(source: int, connection: socket.socket) -> None:
    try:
        while data := os.read(source, _CHUNK):
            connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
    except OSError:
        return  # the other direction sees the same end


def _write_all(sink: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(sink, view) :]

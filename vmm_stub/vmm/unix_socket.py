# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Unix sockets that belong to the host's user alone."""

from __future__ import annotations

import os
import socket
from pathlib import Path

_OTHERS = 0o177


def bind_private(path: Path, kind: socket.SocketKind) -> socket.socket:
    """A non-blocking socket bound to `path` with mode 0600. Its folder is made, a socket left over is removed.

    Raises OSError, also if something else than a socket is there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_socket():
        path.unlink()
    bound = socket.socket(socket.AF_UNIX, kind)
    # The mask, not a later chmod: there must be no moment in which others can connect.
    mask = os.umask(_OTHERS)
    try:
        bound.bind(str(path))
    except OSError:
        bound.close()
        raise
    finally:
        os.umask(mask)
    bound.settimeout(0)
    return bound

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""`host:port` as people write it; an IPv6 address stands in brackets."""

from __future__ import annotations

from typing import Final

_MAX_PORT: Final = 65535


def parse_address(text: str) -> tuple[str, int]:
    """Host and port (1 to 65535) of `host:port` or `[ipv6]:port`. Raises ValueError."""
    host, separator, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{text!r}: an IPv6 address stands in brackets")
    if not separator or not host or not (port.isascii() and port.isdecimal()) or not 0 < int(port) <= _MAX_PORT:
        raise ValueError(f"{text!r} is not host:port")
    host.encode("idna")  # what the resolver does first; UnicodeError is a ValueError
    return host, int(port)


def format_address(host: str, port: int) -> str:
    """The reverse of `parse_address`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

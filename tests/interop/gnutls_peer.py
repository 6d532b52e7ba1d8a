# SPDX-License-Identifier: BSD-2-Clause-Patent
"""A peer on GnuTLS, over memory, through the few functions of its library that this takes.

The bindings on the package index are years old and know no TLS 1.3, and the tools (gnutls-cli, gnutls-serv) tell
alerts in prose only and, as a server, do not carry binary data. The library's interface (libgnutls.so.30) is stable.
"""

from __future__ import annotations

import base64
import ctypes
import errno
import textwrap
import weakref
from ctypes import CFUNCTYPE, POINTER, byref, c_char_p, c_int, c_size_t, c_ssize_t, c_ubyte, c_uint, c_void_p
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.interop.certificates import builder_certificate
from tests.interop.ours import THEIR_40

PROFILE = "NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+AES-256-GCM:-GROUP-ALL:+GROUP-SECP384R1"
"""Priority string that allows what ghci-ratls.md 5 allows."""

KEY = ec.generate_private_key(ec.SECP384R1())
RIGHT = (builder_certificate(KEY),)

_SERVER, _CLIENT, _NONBLOCK = 1 << 0, 1 << 1, 1 << 3
ONE_KEY_SHARE = 1 << 14
"""GNUTLS_KEY_SHARE_TOP: a client sends a share for its first group only."""
_CERTIFICATE_CREDENTIALS = 1
_PEM = 1
_REQUIRE_CERTIFICATE = 2
_ALERT_FATAL = 2
_AGAIN, _INTERRUPTED = -28, -52
_FATAL_ALERT_RECEIVED, _WARNING_ALERT_RECEIVED = -12, -16
_PREMATURE_TERMINATION = -110
_READ_SIZE = 65_536

_Pull = CFUNCTYPE(c_ssize_t, c_void_p, c_void_p, c_size_t)
_Push = CFUNCTYPE(c_ssize_t, c_void_p, c_void_p, c_size_t)
_PullTimeout = CFUNCTYPE(c_int, c_void_p, c_uint)


class _Datum(ctypes.Structure):
    """gnutls_datum_t."""

    _fields_ = (("data", POINTER(c_ubyte)), ("size", c_uint))


def _load() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL("libgnutls.so.30")
    except OSError:
        return None
    session = c_void_p
    prototypes: dict[str, tuple[Any, ...]] = {
        "init": (c_int, POINTER(c_void_p), c_uint),
        "deinit": (None, session),
        "priority_set_direct": (c_int, session, c_char_p, POINTER(c_char_p)),
        "certificate_allocate_credentials": (c_int, POINTER(c_void_p)),
        "certificate_free_credentials": (None, c_void_p),
        "certificate_set_x509_key_mem": (c_int, c_void_p, POINTER(_Datum), POINTER(_Datum), c_int),
        "credentials_set": (c_int, session, c_int, c_void_p),
        "certificate_server_set_request": (None, session, c_int),
        "transport_set_push_function": (None, session, _Push),
        "transport_set_pull_function": (None, session, _Pull),
        "transport_set_pull_timeout_function": (None, session, _PullTimeout),
        "transport_set_errno": (None, session, c_int),
        "handshake": (c_int, session),
        "record_send": (c_ssize_t, session, c_char_p, c_size_t),
        "record_recv": (c_ssize_t, session, c_void_p, c_size_t),
        "session_key_update": (c_int, session, c_uint),
        "bye": (c_int, session, c_int),
        "alert_get": (c_int, session),
        "alert_send": (c_int, session, c_int, c_int),
        "error_to_alert": (c_int, c_int, POINTER(c_int)),
        "session_get_desc": (c_void_p, session),
        "certificate_get_peers": (POINTER(_Datum), session, POINTER(c_uint)),
        "strerror": (c_char_p, c_int),
    }
    for name, (result, *arguments) in prototypes.items():
        function = getattr(library, f"gnutls_{name}")
        function.restype, function.argtypes = result, arguments
    return library


_LIBRARY = _load()

MISSING = "" if _LIBRARY is not None else "no libgnutls.so.30 (Debian, Ubuntu: apt install gnutls-bin)"
"""Why there is no GnuTLS here; empty if there is."""


class GnutlsError(Exception):
    """A call of the library failed, for another reason than the peer."""


class GnutlsPeer:
    """One end. After `turn` says no more: what it read, and how it ended.

    `received` is the application data; `alert` the description of the alert that our side sent, `complaint` of the
    one that it sent itself, if any; `agreed` GnuTLS's words for version, group, signature and suite.
    """

    def __init__(
        self,
        *,
        is_client: bool,
        priority: str = PROFILE,
        key: ec.EllipticCurvePrivateKey = KEY,
        certificates: tuple[bytes, ...] = RIGHT,
        key_updates: int = 0,
        flags: int = 0,
        closes: bool = False,
    ) -> None:
        assert _LIBRARY is not None
        self._gnutls = _LIBRARY
        self.received = b""
        self.alert: int | None = None
        self.complaint: int | None = None
        self.done = False
        self._ended = False
        self._key_updates = key_updates
        self._closes = closes
        self._incoming, self._outgoing = bytearray(), bytearray()
        self._session = self._new("init", _NONBLOCK | flags | (_CLIENT if is_client else _SERVER))
        credentials = self._new("certificate_allocate_credentials")
        weakref.finalize(self, self._gnutls.gnutls_certificate_free_credentials, credentials)
        weakref.finalize(self, self._gnutls.gnutls_deinit, self._session)
        if certificates:
            shown, secret = _datum(_pem(certificates)), _datum(_pem_key(key))
            self._call("certificate_set_x509_key_mem", credentials, byref(shown), byref(secret), _PEM)
        self._call("priority_set_direct", self._session, priority.encode(), None)
        self._call("credentials_set", self._session, _CERTIFICATE_CREDENTIALS, credentials)
        if not is_client:
            self._gnutls.gnutls_certificate_server_set_request(self._session, _REQUIRE_CERTIFICATE)
        self._connect()

    @property
    def agreed(self) -> str:
        """GnuTLS's description of the session, such as (TLS1.3)-(ECDHE-SECP384R1)-(...)-(AES-256-GCM)."""
        text = self._gnutls.gnutls_session_get_desc(self._session)
        return ctypes.string_at(text).decode() if text else ""

    @property
    def our_certificates(self) -> list[bytes]:
        """What our side has shown, DER."""
        count = c_uint()
        first = self._gnutls.gnutls_certificate_get_peers(self._session, byref(count))
        return [ctypes.string_at(first[n].data, first[n].size) for n in range(count.value)]

    def turn(self, data: bytes) -> bytes:
        """Take bytes and go on as far as they lead; `b""` is no end of the stream."""
        self._incoming += data
        if not self._ended:
            self._advance()
        out, self._outgoing = bytes(self._outgoing), bytearray()
        return out

    def _advance(self) -> None:
        if not self.done:
            if (status := self._gnutls.gnutls_handshake(self._session)) < 0:
                self._fail(status)
                return
            self.done = True
            self._speak()
        buffer = (c_ubyte * _READ_SIZE)()
        while not self._ended:
            before = len(self._incoming)
            size = self._gnutls.gnutls_record_recv(self._session, buffer, _READ_SIZE)
            if size > 0:
                self.received += bytes(buffer[:size])
            elif size < 0:
                self._fail(size)
            else:
                self._ended = True
            # It says "again" too when it took a message that is no application data.
            if size in {_AGAIN, _INTERRUPTED} and len(self._incoming) == before:
                break

    def _speak(self) -> None:
        first = len(THEIR_40) // 2
        self._call("record_send", self._session, THEIR_40[:first], first)
        for _ in range(self._key_updates):
            # 1: ours shall be updated as well.
            self._call("session_key_update", self._session, 1)
        self._call("record_send", self._session, THEIR_40[first:], len(THEIR_40) - first)
        if self._closes:
            self._call("bye", self._session, 1)

    def _fail(self, status: int) -> None:
        if status in {_AGAIN, _INTERRUPTED}:
            return
        self._ended = True
        if status in {_FATAL_ALERT_RECEIVED, _WARNING_ALERT_RECEIVED}:
            self.alert = self._gnutls.gnutls_alert_get(self._session)
        elif status != _PREMATURE_TERMINATION:
            level = c_int()
            self.complaint = self._gnutls.gnutls_error_to_alert(status, byref(level))
            self._gnutls.gnutls_alert_send(self._session, _ALERT_FATAL, self.complaint)

    def _new(self, function: str, *arguments: Any) -> c_void_p:
        made = c_void_p()
        self._call(function, byref(made), *arguments)
        return made

    def _call(self, function: str, *arguments: Any) -> None:
        status = getattr(self._gnutls, f"gnutls_{function}")(*arguments)
        if status < 0:
            raise GnutlsError(f"{function}: {self._gnutls.gnutls_strerror(status).decode()}")

    def _connect(self) -> None:
        """Give the session its transport. The callbacks hold no reference to this object, so that it is freed."""
        incoming, gnutls, session = self._incoming, self._gnutls, self._session
        peer = weakref.proxy(self)

        def pull(_transport: int, buffer: int, size: int) -> int:
            if not incoming:
                gnutls.gnutls_transport_set_errno(session, errno.EAGAIN)
                return -1
            portion = bytes(incoming[:size])
            del incoming[:size]
            ctypes.memmove(buffer, portion, len(portion))
            return len(portion)

        def push(_transport: int, buffer: int, size: int) -> int:
            peer._outgoing += ctypes.string_at(buffer, size)
            return size

        def wait(_transport: int, _milliseconds: int) -> int:
            return int(bool(incoming))

        self._callbacks = _Pull(pull), _Push(push), _PullTimeout(wait)
        gnutls.gnutls_transport_set_pull_function(session, self._callbacks[0])
        gnutls.gnutls_transport_set_push_function(session, self._callbacks[1])
        gnutls.gnutls_transport_set_pull_timeout_function(session, self._callbacks[2])


def _datum(data: bytes) -> _Datum:
    copy = (c_ubyte * len(data)).from_buffer_copy(data)
    return _Datum(ctypes.cast(copy, POINTER(c_ubyte)), len(data))


def _pem(certificates: tuple[bytes, ...]) -> bytes:
    lines = []
    for certificate in certificates:
        body = textwrap.wrap(base64.b64encode(certificate).decode(), 64)
        lines += ["-----BEGIN CERTIFICATE-----", *body, "-----END CERTIFICATE-----"]
    return "\n".join([*lines, ""]).encode()


def _pem_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""HTTP GET for collateral, bounded in time and size, with the reference's retries (policy.md 5.2)."""

from __future__ import annotations

import queue
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from lab.policy_tools import failures
from lab.policy_tools.errors import ToolError

MAX_BODY: Final = 16 << 20
"""Bytes of a body."""
RETRY_DELAYS: Final = (10.0, 20.0, 40.0, 80.0, 160.0)
"""Seconds before each further attempt."""
SILENCE: Final = 30.0
"""Seconds without a byte after which a service counts as gone."""
WHOLE: Final = 120.0
"""Seconds that one answer may take altogether."""
OK: Final = 200
NOT_FOUND: Final = 404
_MOST_DIGITS: Final = 12
_TRANSIENT: Final = (408, 429)
_SERVER_ERRORS: Final = range(500, 600)


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers by lower-case name, and body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Fetcher(Protocol):
    """Whoever gets what a URL names; tests have their own."""

    def get(self, url: str) -> Answer:
        """The answer, whatever its status. Raises ToolError (LAB-PCS-UNREACHABLE, LAB-PCS-ANSWER-INVALID)."""


class HttpFetcher:
    """Over HTTP and HTTPS, redirects included. `delays`: seconds before each retry; none: no retry."""

    def __init__(
        self,
        delays: tuple[float, ...] = RETRY_DELAYS,
        *,
        silence: float = SILENCE,
        whole: float = WHOLE,
        sleep: Callable[[float], None] = time.sleep,
        talk: Callable[[str], None] = lambda text: print(text, file=sys.stderr),  # noqa: T201 - a tool talks
    ) -> None:
        self._delays = delays
        self._silence = silence
        self._whole = whole
        self._sleep = sleep
        self._talk = talk

    def get(self, url: str) -> Answer:
        """Get it, again after each delay while the service fails in a way that may pass."""
        for delay in self._delays:
            try:
                return self._once(url)
            except _Transient as trouble:
                self._talk(f"{url}: {trouble}; again in {delay:g} seconds")
                self._sleep(delay)
        try:
            return self._once(url)
        except _Transient as trouble:
            raise ToolError(failures.PCS_UNREACHABLE, f"{url}: {trouble}") from trouble

    def _once(self, url: str) -> Answer:
        if urlsplit(url).scheme not in ("http", "https"):
            raise ToolError(failures.PCS_ANSWER_INVALID, f"{url[:200]!r} is no address of a collateral service")
        answer = _within(self._whole, lambda: _get(url, self._silence))
        if answer.status in _TRANSIENT or answer.status in _SERVER_ERRORS:
            raise _Transient(f"status {answer.status}")
        return answer


class _Transient(Exception):
    """A failure that may pass."""


def _get(url: str, silence: float) -> Answer:
    try:
        with _opener().open(url, timeout=silence) as response:
            return _answer(url, response)
    except urllib.error.HTTPError as error:  # an answer too, with another status
        with error:
            return _answer(url, error)
    except (OSError, HTTPException) as error:
        raise _Transient(str(error) or type(error).__name__) from error
    except ValueError as error:
        raise ToolError(failures.PCS_ANSWER_INVALID, f"{url[:200]}: {error}") from error


def _answer(url: str, response: Any) -> Answer:
    try:
        body = response.read(MAX_BODY + 1)
    except (OSError, HTTPException) as error:
        raise _Transient(str(error) or type(error).__name__) from error
    if len(body) > MAX_BODY:
        raise ToolError(failures.PCS_ANSWER_INVALID, f"{url}: more than {MAX_BODY} bytes")
    headers = {name.lower(): value for name, value in response.headers.items()}
    promised = headers.get("content-length", "")
    if promised.isdigit() and "transfer-encoding" not in headers and len(body) < int(promised[:_MOST_DIGITS]):
        raise _Transient(f"{len(body)} of {promised[:_MOST_DIGITS]} bytes came")
    return Answer(response.status, headers, body)


def _opener() -> urllib.request.OpenerDirector:
    """Nothing but HTTP and HTTPS: a redirect to another scheme leads nowhere."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


def _within(limit: float, call: Callable[[], Answer]) -> Answer:
    """What `call` returns or raises, if that takes no longer than `limit` seconds; else it is left to itself."""
    done: queue.SimpleQueue[Answer | BaseException] = queue.SimpleQueue()

    def run() -> None:
        try:
            done.put(call())
        except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
            done.put(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        result = done.get(timeout=limit)
    except queue.Empty:
        raise _Transient(f"no whole answer within {limit:g} seconds") from None
    if isinstance(result, BaseException):
        raise result
    return result

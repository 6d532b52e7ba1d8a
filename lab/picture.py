# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The picture in the README: what a terminal shows of `./inv up`, as SVG. `python -m lab.picture` makes it anew.

Nothing is drawn by hand: the command runs on a pseudo terminal, and its own bytes become the picture. A test holds the
lines of the picture against a real run.
"""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Sequence
from html import unescape
from typing import Final

from lab.names import checkout_path

COLUMNS: Final = 100
PICTURE: Final = "docs/up.svg"
COMMAND: Final = ("./inv", "up")

_FRAME: Final = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
 font-size: {char_height}px; line-height: {line_height}px; font-variant-east-asian: full-width; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/></clipPath>{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""
_TEXT: Final = re.compile(r'<text [^>]*?y="([\d.]+)"[^>]*>([^<]*)</text>')
_OVERWRITTEN: Final = re.compile(r"[^\n]*\n(\x1b\[\?25h)?\r\x1b\[1A\x1b\[2K|[^\n]*\r\x1b\[2K")
"""Lines that the terminal erased again: rich's spinner. Cursor up and erase, or erase in place."""


def on_terminal(command: Sequence[str]) -> str:
    """What a terminal of COLUMNS columns gets from `command`, colours included. Raises CalledProcessError."""
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS)}
    environment.pop("NO_COLOR", None)
    process = subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, cwd=checkout_path(), env=environment, close_fds=True
    )
    os.close(slave)
    chunks = []
    while True:
        try:
            chunk = os.read(master, 65536)
        except OSError:  # a pseudo terminal ends so when the last writer is gone
            break
        if not chunk:
            break
        chunks.append(chunk)
    os.close(master)
    status = process.wait()
    text = b"".join(chunks).decode("utf-8", "replace").replace("\r\n", "\n")
    if status:
        raise subprocess.CalledProcessError(status, list(command), text)
    return text


def picture(text: str) -> str:
    """A terminal's bytes as SVG. Lines that the terminal overwrote are left out, as people do not see them either."""
    from rich.console import Console  # noqa: PLC0415 - only for pictures
    from rich.text import Text  # noqa: PLC0415 - as above

    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123 - lives as long as the process
    console.print(Text.from_ansi(f"$ {' '.join(COMMAND)}\n{_OVERWRITTEN.sub('', text).rstrip()}"))
    return console.export_svg(title="MigTD Lab", code_format=_FRAME, unique_id="up")


def shown(text: str) -> list[str]:
    """The lines of a terminal's bytes as people see them, without colours."""
    from rich.text import Text  # noqa: PLC0415 - as above

    return Text.from_ansi(_OVERWRITTEN.sub("", text).rstrip()).plain.splitlines()


def lines_of(svg: str) -> list[str]:
    """The text lines of a picture, title included. Runs of blanks can be shorter than they were."""
    rows: dict[float, str] = {}
    for y, text in _TEXT.findall(svg):
        rows[float(y)] = rows.get(float(y), "") + unescape(text).replace("\u00a0", " ")
    return [rows[y].rstrip() for y in sorted(rows)]


def main() -> int:
    """Run the command and write the picture."""
    svg = "".join(f"{line.rstrip()}\n" for line in picture(on_terminal(COMMAND)).splitlines())
    (checkout_path() / PICTURE).write_text(svg, encoding="utf-8")
    sys.stderr.write(f"wrote {PICTURE}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

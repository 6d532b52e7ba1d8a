# SPDX-License-Identifier: BSD-2-Clause-Patent
"""`images`: build what is missing and list it. `up` does the same by itself; this shows it alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Final

from lab.base_image import Origin
from lab.errors import ExitStatus
from lab.images import Image, describe, ensure_images
from lab.options import ImagesOptions
from lab.progress import steps

_MB: Final = 1_000_000


def images(options: ImagesOptions) -> ExitStatus:
    """Build as needed, then list base and images with their sizes on standard output. Raises EngineError."""
    with steps("looking at the images") as progress:
        built = ensure_images(progress, wanted=Origin.DEBIAN if options.offline else None)
    listed = describe(built)
    if options.json:
        sys.stdout.write(json.dumps(document(listed, built.base.origin, built.base.python)) + "\n")
    else:
        _print_table(listed)
    return ExitStatus.SUCCESS


def document(listed: Sequence[Image], origin: Origin, python: str) -> dict[str, object]:
    """The list as a JSON document, schema 1: where the base is from, its Python, and per image reference, id, bytes."""
    return {
        "schema": 1,
        "base": origin.value,
        "python": python,
        "images": [
            {
                "target": image.target,
                "reference": image.reference,
                "id": image.id,
                "bytes": image.size,
                "own_bytes": image.own_size,
            }
            for image in listed
        ],
    }


def _print_table(listed: Sequence[Image]) -> None:
    from rich.table import Table  # noqa: PLC0415 - slow to import, and not needed for --json

    from lab.output import console  # noqa: PLC0415 - as above

    table = Table("image", "reference", "size", "of its own", box=None, pad_edge=False, header_style="bold")
    for image in listed:
        table.add_row(image.target, image.reference, f"{image.size / _MB:.1f} MB", f"{image.own_size / _MB:.1f} MB")
    console().print(table)

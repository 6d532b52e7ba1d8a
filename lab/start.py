# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Where `./inv` enters Python: so small that Ctrl-C while everything else is loaded still ends in good order."""

from __future__ import annotations

import sys


def main() -> int:
    """Load the lab's command line and run it; the exit status. INTERRUPTED also before it is there."""
    try:
        from lab.program import main as run  # noqa: PLC0415 - loading it takes long enough to be interrupted

        return run()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())

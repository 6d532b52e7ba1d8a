# SPDX-License-Identifier: BSD-2-Clause-Patent
"""`python -m migtd`: the stand-alone mode. The only place where this package reaches for a host of its own."""

from __future__ import annotations

import os
import sys


def main() -> int:
    """Run one side of one migration in this process and return the MigrationResult as the exit status."""
    # Imported here: a MigTD in an image has no host and no lab beside it, and needs neither.
    from lab.standalone import run  # noqa: PLC0415 - see above

    return run(sys.argv[1:], os.environ)


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What the process engine writes down of a lab: `lab.json` in the lab's folder, replaced as a whole at each change."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from lab.engines.local_process import ProcessId

FILE: Final = "lab.json"


@dataclass(frozen=True, slots=True)
class RoleRecord:
    """One role that was started: from what (`digest`) and as which process. `role` is `host` or `migtd`."""

    role: str
    host: str
    name: str
    digest: str
    process: ProcessId

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells it from the lab's other roles."""
        return self.role, self.host, self.name

    @property
    def path(self) -> str:
        """`HOST` or `HOST/MIGTD`."""
        return self.host if self.role == "host" else f"{self.host}/{self.name}"


@dataclass(frozen=True, slots=True)
class LabRecord:
    """A lab: which checkout started it, from which plan, and its roles in the order in which they were started."""

    lab: str
    checkout: str
    fingerprint: str
    roles: tuple[RoleRecord, ...] = ()

    def with_role(self, role: RoleRecord) -> LabRecord:
        """The same lab with one role more."""
        return replace(self, roles=(*self.roles, role))


def write(folder: Path, record: LabRecord) -> None:
    """Replace what is written down of the lab in `folder`."""
    fresh = folder / f"{FILE}.new"
    fresh.write_text(json.dumps({"schema": 1, **asdict(record)}, indent=1), encoding="utf-8")
    fresh.replace(folder / FILE)


def read(folder: Path) -> LabRecord | None:
    """What is written down of the lab in `folder`; None if nothing is, or nothing that can be read."""
    try:
        body = json.loads((folder / FILE).read_bytes())
        roles = tuple(
            RoleRecord(
                str(each["role"]),
                str(each["host"]),
                str(each["name"]),
                str(each["digest"]),
                ProcessId(int(each["process"]["pid"]), int(each["process"]["start"]), str(each["process"]["boot"])),
            )
            for each in body["roles"]
        )
        return LabRecord(str(body["lab"]), str(body["checkout"]), str(body["fingerprint"]), roles)
    except (OSError, ValueError, KeyError, TypeError):
        return None

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Who may import whom (docs/contributing.md): the MigTD knows no host, a host knows no lab."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FORBIDDEN = {"migtd": {"vmm_stub", "lab"}, "vmm_stub": {"lab"}}
EXCEPTION = Path("migtd/__main__.py")
"""The stand-alone mode puts a host into its own process."""


def imported(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("package", FORBIDDEN)
def test_a_lower_package_never_imports_a_higher_one(package):
    offenders = [
        str(file.relative_to(ROOT))
        for file in (ROOT / package).rglob("*.py")
        if FORBIDDEN[package] & set(imported(file)) and file.relative_to(ROOT) != EXCEPTION
    ]
    assert offenders == []

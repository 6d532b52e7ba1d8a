# SPDX-License-Identifier: BSD-2-Clause-Patent
from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab.generated import generated
from migtd.checks import CheckName
from migtd.observer import Phase

FILES = generated()


@pytest.mark.parametrize("path", sorted(FILES))
def test_generated_text_in_docs_is_that_of_the_code(path: str, checkout: Path):
    assert (checkout / path).read_text(encoding="utf-8") == FILES[path], "run `python -m lab.generated`"


def test_outcome_schema_closes_the_lists_of_phases_and_checks():
    definitions = json.loads(FILES["docs/outcome.schema.json"])["$defs"]

    assert definitions["Phase"]["enum"] == [phase.value for phase in Phase]
    assert definitions["CheckName"]["enum"] == [name.value for name in CheckName]
    assert definitions["Outcome"]["additionalProperties"] is False
    assert definitions["Outcome"]["properties"]["schema"]["const"] == 1


def test_lab_file_schema_refuses_keys_it_does_not_know():
    schema = json.loads(FILES["docs/lab.schema.json"])

    assert schema["additionalProperties"] is False
    assert all(each["additionalProperties"] is False for each in schema["$defs"].values() if each["type"] == "object")


def test_events_schema_closes_the_list_of_kinds():
    schema = json.loads(FILES["docs/events.schema.json"])

    kinds = schema["$defs"]["HistoryKind"]["enum"]
    assert {"call", "interrupt", "frame", "state", "result"} <= set(kinds)
    assert schema["required"] == ["seq", "time", "host", "migtd", "request_id", "kind", "data"]

# SPDX-License-Identifier: BSD-2-Clause-Patent
from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from lab.engines.base import PublishedPort, Service
from lab.errors import ExitStatus, UsageError
from lab.labfile import default_lab, load_lab_file, parse_lab_file, parse_versions, split_address
from lab.labfile_commands import DEFAULT_TEXT, init, validate
from lab.options import InitOptions, ValidateOptions
from lab.plan import Party, resolve

BASE = """\
schema: 1
hosts:
  host-a: {migtds: {source: {}}}
  host-b:
    versions: 0..2
    migtds:
      destination: {vcpus: 2, shared_memory_mib: 16}
"""


def refused(text: str | bytes) -> UsageError:
    with pytest.raises(UsageError) as caught:
        parse_lab_file(text.encode() if isinstance(text, str) else text, "lab.yaml")
    assert caught.value.status is ExitStatus.USAGE
    return caught.value


def lines(text: str | bytes) -> list[str]:
    error = refused(text)
    assert error.kind.id == "LAB-FILE-INVALID"
    return [line.strip() for line in error.detail.strip().splitlines()]


def test_written_default_file_means_the_default_lab():
    lab = parse_lab_file(DEFAULT_TEXT.encode(), "lab.yaml")

    assert lab == default_lab()


def test_commented_parts_of_the_default_file_are_valid_too():
    uncommented = "\n".join(
        line.replace("# ", "", 1)
        if line.lstrip().startswith(("# name:", "# engine:", "# deadlines:", "# target_tds:"))
        or line.startswith("#   td-1")
        or "# - source" in line
        or "#   destination" in line
        else line
        for line in DEFAULT_TEXT.splitlines()
    )

    lab = parse_lab_file(uncommented.encode(), "lab.yaml")

    assert lab.name == "my-lab"
    assert lab.engine == "process"
    assert lab.target_tds["td-1"].binding_handle == 0x1234
    assert [migration.source.external for migration in lab.migrations] == [None, None, "127.0.0.1:8001"]


def test_unknown_key_is_refused_with_file_line_and_key_path_and_the_key_that_was_meant():
    assert lines(BASE + "atestation: accept-all\n") == [
        "lab.yaml:8: atestation: unknown key; did you mean 'attestation'?"
    ]


def test_all_faults_are_told_at_once_in_the_order_of_lines():
    found = lines(
        BASE.replace("vcpus: 2", "vcpus: 0, cores: 1") + "deadlines:\n  read: -1\n  session: .nan\nname: A_b\n"
    )

    assert [each.split(": ")[:2] for each in found] == [
        ["lab.yaml:7", "hosts.host-b.migtds.destination.vcpus"],
        ["lab.yaml:7", "hosts.host-b.migtds.destination.cores"],
        ["lab.yaml:9", "deadlines.read"],
        ["lab.yaml:10", "deadlines.session"],
        ["lab.yaml:11", "name"],
    ]


def test_names_that_stand_for_nothing_are_refused_where_they_are_used():
    migrations = """\
migrations:
  - source: {host: host-a, migtd: nobody}
    destination: {host: host-c, migtd: destination}
    target_td: td-1
"""
    found = lines(BASE + migrations)

    assert [each.split(": ")[:2] for each in found] == [
        ["lab.yaml:9", "migrations[0].source.migtd"],
        ["lab.yaml:10", "migrations[0].destination.host"],
        ["lab.yaml:11", "migrations[0].target_td"],
    ]
    assert "did you mean 'host-" in found[1]


@pytest.mark.parametrize(
    ("migration", "words"),
    [
        ("{source: {host: host-a}, destination: {host: host-b, migtd: destination}}", "give `host` and `migtd`"),
        ("{source: {external: 'x:1', host: host-a}, destination: {host: host-b, migtd: destination}}", "alone"),
        ("{source: {external: 'x:1'}, destination: {external: 'y:2'}}", "both external"),
        ("{source: {host: host-a, migtd: source}, destination: {host: host-a, migtd: source}}", "same MigTD"),
        ("{source: {host: host-a, migtd: source}, destination: {external: 'no port'}}", "HOST:PORT"),
        ("{source: {host: host-a, migtd: source}}", "this key is missing"),
        ("{source: {external: 'x:1'}, destination: {host: host-b, migtd: destination}, count: yes}", "integer"),
    ],
)
def test_senseless_migrations_are_refused(migration: str, words: str):
    found = lines(f"{BASE}migrations:\n  - {migration}\n")

    assert len(found) == 1
    assert found[0].startswith("lab.yaml:9: migrations[0]")
    assert words in found[0]


def test_ports_of_one_host_cannot_be_published_on_two_addresses():
    migrations = """\
migrations:
  - {source: {external: "127.0.0.1:8001"}, destination: {host: host-b, migtd: destination}}
  - {source: {external: "0.0.0.0:8002"}, destination: {host: host-b, migtd: destination}}
"""
    assert lines(BASE + migrations) == [
        "lab.yaml:10: migrations[1].source.external: the ports of one host are published on one address only"
    ]


@pytest.mark.parametrize(
    "line", ["attestation: azure-cvm", "session: spdm", "transport: vmcall-vsock", "engine: swarm"]
)
def test_values_that_come_later_have_an_id_of_their_own(line: str):
    error = refused(f"{BASE}{line}\n")

    assert error.kind.id == "LAB-COMES-LATER"
    assert "lab.yaml:8" in error.detail


def test_flag_values_that_come_later_or_never_are_refused():
    with pytest.raises(UsageError) as later:
        resolve(default_lab(), attestation="azure-emulated")
    with pytest.raises(UsageError) as unknown:
        resolve(default_lab(), session="ipsec")
    with pytest.raises(UsageError) as deadline:
        resolve(default_lab(), deadline=0.0)

    assert later.value.kind.id == "LAB-COMES-LATER"
    assert unknown.value.kind.id == "LAB-VALUE-UNKNOWN"
    assert deadline.value.kind.id == "LAB-USAGE-VALUE-INVALID"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: &x [1, 2]\nb: *x\n", "anchors and aliases"),
        ("a: &a [x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "anchors and aliases"),
        ("a: !!python/object/apply:os.system [true]\n", "tag"),
        ("a: ! x\n", "tag"),
        ("[" * 5000, "nested deeper"),
        ("- " * 5000, "nested deeper"),
        ("a: " + "x" * 200_000, "at most"),
        ("[" + "1," * 30_000 + "]", "keys and values"),
        ("--- 1\n--- 2\n", "one YAML document"),
        ("", "empty"),
        ("# nothing\n", "empty"),
        ("a: [1,\n", "while parsing"),
        ("a: 1\n a: 2\n", ""),
        ("a: 1\na: 2\n", "twice"),
        ("1: x\n", "must be text"),
        ("? [a]\n: x\n", "must be text"),
        ("<<: {a: 1}\n", "constructor"),
        ("a: 2001-13-01\n", "month"),
        ("a: " + "9" * 9999, "digits"),
        ("a: \x07\n", ""),
        (b"\xff\xfe\xfd", "UTF-8"),
        ("just text\n", "keys with values"),
        ("[]\n", "keys with values"),
        ("null\n", "keys with values"),
    ],
)
def test_hostile_text_is_refused_with_a_line(text: str | bytes, words: str):
    found = lines(text)

    assert found[0].startswith("lab.yaml:")
    assert words in found[0]


def test_missing_file_has_an_id(tmp_path: Path):
    with pytest.raises(UsageError) as caught:
        load_lab_file(tmp_path / "none.yaml")

    assert caught.value.kind.id == "LAB-FILE-MISSING"


def test_init_writes_once_and_never_over_a_file(tmp_path: Path):
    file = tmp_path / "lab.yaml"

    assert init(InitOptions(file=file)) is ExitStatus.SUCCESS
    assert load_lab_file(file) == default_lab()
    file.write_text("mine")
    with pytest.raises(UsageError) as caught:
        init(InitOptions(file=file))

    assert caught.value.kind.id == "LAB-FILE-EXISTS"
    assert file.read_text() == "mine"


@pytest.mark.parametrize("as_json", [True, False])
def test_validate_prints_the_resolved_lab(tmp_path: Path, capsys: pytest.CaptureFixture[str], as_json):
    file = tmp_path / "lab.yaml"
    file.write_text(BASE + "name: my-lab\n")

    assert validate(ValidateOptions(file=file, json=as_json)) is ExitStatus.SUCCESS

    out = capsys.readouterr().out
    shown = json.loads(out) if as_json else yaml.safe_load(out)
    assert shown["name"] == "my-lab"
    assert shown["attestation"] == "lab"
    assert shown["deadlines"]["session"] == 60.0
    destination = {"vcpus": 2, "shared_memory_mib": 16, "quote_form": "qgs"}
    assert shown["hosts"]["host-b"]["migtds"]["destination"] == destination


def test_ranges_and_addresses_are_read_strictly():
    assert parse_versions("0..65535").maximum == 65535
    assert split_address("[::1]:8001") == ("::1", 8001)
    assert split_address("peer.example:1") == ("peer.example", 1)
    for text in ("1", "1..", "2..1", "0..65536", "1...2", " 1..2", "१..२"):
        with pytest.raises(ValueError, match=r"MIN"):
            parse_versions(text)
    for text in ("host", "host:0", "host:65536", ":1", "a b:1", "::1:80", "host:1:2"):
        with pytest.raises(ValueError, match=r"HOST:PORT"):
            split_address(text)


def test_plan_follows_the_file():
    lab = parse_lab_file((BASE + "deadlines: {read: 2}\nname: from-file\n").encode(), "lab.yaml")

    plan = resolve(lab).plan()

    assert plan.lab == "from-file"
    assert resolve(lab, name="from-flag").plan().lab == "from-flag"
    host_a, host_b = plan.hosts
    assert host_b.config.versions.minimum == 0
    assert host_b.config.versions.maximum == 2
    assert host_b.config.migtds[0].vcpus == 2
    assert host_b.config.migtds[0].shared_memory == 16 << 20
    assert host_a.config.deadlines.read == 2
    assert host_a.migtds[0].deadlines.read == 2
    assert (host_a.published, host_a.reaches_outside) == ((), False)


def test_deadline_flag_sets_every_peer_facing_wait():
    plan = resolve(default_lab(), deadline=2.0).plan()

    assert plan.hosts[0].config.deadlines.session == 2.0
    assert plan.hosts[0].migtds[0].deadlines.connect == 2.0
    assert plan.hosts[0].config.deadlines.call == 30.0


def test_fingerprint_changes_with_what_is_started_and_not_with_the_migrations():
    first = resolve(default_lab(), name="a")
    other_name = resolve(default_lab(), name="b")
    no_migrations = resolve(default_lab().model_copy(update={"migrations": []}), name="a")
    debug = resolve(default_lab(), name="a", debug=True)

    assert first.plan().fingerprint == other_name.plan().fingerprint == no_migrations.plan().fingerprint
    assert first.plan().fingerprint != debug.plan().fingerprint


def test_only_external_peers_open_a_lab_to_the_outside():
    migrations = """\
migrations:
  - {source: {external: "192.0.2.7:8001"}, destination: {host: host-b, migtd: destination}, count: 2}
  - {source: {host: host-a, migtd: source}, destination: {external: "192.0.2.1:9000"}}
"""
    resolved = resolve(parse_lab_file((BASE + migrations).encode(), "lab.yaml"))
    host_a, host_b = resolved.plan().hosts
    first, second, third = resolved.jobs()

    assert (host_a.published, host_a.reaches_outside) == ((), True)
    assert host_b.published == (PublishedPort(Service.WIRE, "192.0.2.7", 8001),)
    assert not host_b.reaches_outside
    assert (first.source, first.destination, first.listen_port) == (None, Party("host-b", "destination"), 8001)
    assert first.exclusive & second.exclusive, "two migrations cannot wait on one port at once"
    assert (third.destination, third.peer) == (None, "192.0.2.1:9000")
    assert not third.exclusive


def test_count_can_be_overridden():
    resolved = resolve(default_lab())

    assert len(resolved.jobs()) == 1
    assert len(resolved.jobs(3)) == 3
    assert resolved.jobs(0) == ()

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""A lab's Compose document: how each role is confined, what it is given, and how labels lead back to the lab."""

from __future__ import annotations

import json
import re

import pytest
import yaml

from lab import compose
from lab.compose import compose_document, merged
from lab.errors import EngineError
from lab.labfile import default_lab, parse_lab_file
from lab.plan import resolve
from vmm_stub.quoting.pki import push_pki
from vmm_stub.testing_quoting import PKI as LAB_PKI
from vmm_stub.vmm.control.models import HostConfig

PKI = push_pki(LAB_PKI)
IMAGES = {"source": "s:1", "destination": "d:1", "vmm-stub": "v:1"}
LARGE = b"""
schema: 1
hosts:
  host-a: {migtds: {one: {}, two: {vcpus: 4, shared_memory_mib: 256}, three: {}}}
  host-b: {migtds: {one: {}}}
  host-c: {migtds: {four: {}}}
migrations: []
"""
EXTERNAL = b"""
schema: 1
hosts:
  host-a: {migtds: {m: {}}}
  host-b: {migtds: {m: {}}}
  host-c: {migtds: {m: {}}}
migrations:
  - {source: {external: "localhost:9001"}, destination: {host: host-b, migtd: m}}
  - {source: {host: host-c, migtd: m}, destination: {external: "192.0.2.1:8001"}}
"""
HARDENING = {
    "user": "10001:10001",
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges:true"],
}


@pytest.fixture(params=["default", "large", "external"])
def document(request, checkout):
    labs = {"default": default_lab, "large": lambda: _lab(LARGE), "external": lambda: _lab(EXTERNAL)}
    return _document(labs[request.param](), checkout)


def test_every_role_is_confined(document):
    for name, service in document["services"].items():
        assert {key: service[key] for key in HARDENING} == HARDENING, name
        assert service["mem_limit"] > 0, name
        assert service["pids_limit"] > 0, name
        assert any(each.startswith("/run:") for each in service["tmpfs"]), name


def test_no_role_is_given_more_than_templates_say(document):
    risky = {"privileged", "cap_add", "devices", "pid", "ipc", "userns_mode", "container_name", "volumes_from"}
    for service in document["services"].values():
        assert not risky & set(service)
        assert all(each["type"] == "volume" for each in service["volumes"])


def test_migtds_have_no_network_and_no_port(document):
    migtds = _of_role(document, "migtd")
    assert migtds
    for service in migtds.values():
        assert service["network_mode"] == "none"
        assert "networks" not in service
        assert "ports" not in service


def test_wire_is_internal_and_hosts_alone_are_on_it(checkout):
    document = _document(default_lab(), checkout)
    assert document["networks"].keys() == {"wire"}
    assert document["networks"]["wire"]["internal"] is True
    assert {service["networks"][0] for service in _of_role(document, "host").values()} == {"wire"}
    assert all(len(service["networks"]) == 1 for service in _of_role(document, "host").values())


def test_no_port_is_published_by_default(checkout):
    assert not [service for service in _document(default_lab(), checkout)["services"].values() if "ports" in service]


def test_port_is_published_for_an_external_source_and_only_there(checkout):
    services = _document(_lab(EXTERNAL), checkout)["services"]
    assert "ports" not in services["host-a"]
    assert "ports" not in services["host-c"]
    (port,) = services["host-b"]["ports"]
    assert (port["published"], port["target"]) == ("9001", 9001)
    assert port["host_ip"] in {"127.0.0.1", "::1"}


def test_hosts_that_meet_an_external_peer_have_a_way_out(checkout):
    document = _document(_lab(EXTERNAL), checkout)
    networks = {name: service["networks"] for name, service in _of_role(document, "host").items()}
    assert networks == {"host-a": ["wire"], "host-b": ["wire", "outside"], "host-c": ["wire", "outside"]}
    assert not document["networks"]["outside"].get("internal")


def test_everything_carries_the_labs_label(document):
    kinds = ("services", "networks", "volumes")
    for kind in kinds:
        assert document[kind]
        for name, entry in document[kind].items():
            assert entry["labels"][compose.LAB_LABEL] == "lab-1", (kind, name)
            assert entry["labels"][compose.CHECKOUT_LABEL], (kind, name)


def test_labels_tell_all_that_status_needs(checkout):
    labels = _document(_lab(LARGE), checkout)["services"]["host-a.two"]["labels"]
    assert labels[compose.ROLE_LABEL] == "migtd"
    assert labels[compose.HOST_LABEL] == "host-a"
    assert labels[compose.NAME_LABEL] == "two"
    assert labels[compose.CHECKOUT_LABEL] == str(checkout)
    assert labels[compose.FINGERPRINT_LABEL] == resolve(_lab(LARGE), name="lab-1").plan().fingerprint


def test_host_has_all_its_channels_and_a_migtd_only_its_own(checkout):
    services = _document(_lab(LARGE), checkout)["services"]
    assert _mounts(services["host-a"]) == {
        "host-a.one": "/run/migtd/one",
        "host-a.two": "/run/migtd/two",
        "host-a.three": "/run/migtd/three",
    }
    assert _mounts(services["host-a.two"]) == {"host-a.two": "/run/migtd/two"}
    assert _mounts(services["host-b.one"]) == {"host-b.one": "/run/migtd/one"}


def test_channels_are_bounded_memory_of_the_images_user(checkout):
    options = _document(_lab(LARGE), checkout)["volumes"]["host-a.two"]["driver_opts"]
    assert options["type"] == "tmpfs"
    assert re.search(r"\buid=10001,gid=10001,mode=0700\b", options["o"])
    (size,) = (int(each) for each in re.findall(r"size=(\d+)", options["o"]))
    assert 256 << 20 < size < 260 << 20


def test_shared_memory_counts_on_top_of_a_roles_own_limit(checkout):
    services = _document(_lab(LARGE), checkout)["services"]
    assert services["host-a.two"]["mem_limit"] - services["host-a.one"]["mem_limit"] == 192 << 20
    assert services["host-a"]["mem_limit"] - services["host-b"]["mem_limit"] == (64 + 256) << 20


def test_host_is_told_where_things_are_in_its_container(checkout):
    config = _config(_document(_lab(LARGE), checkout)["services"]["host-a"])
    assert config.control == compose.CONTROL_SOCKET
    assert [each.channel for each in config.migtds] == ["/run/migtd/one", "/run/migtd/two", "/run/migtd/three"]
    assert (config.wire_address, config.wire_name) == ("0.0.0.0", "host-a")  # noqa: S104 - what is asserted


def test_a_collateral_service_is_published_on_its_address_only_and_listens_in_the_container(checkout):
    lab = _lab(LARGE.replace(b"host-b: {", b'host-b: {pcs: "127.0.0.1:8081", '))
    resolved = resolve(lab, name="lab-1").with_pki(PKI)
    services = compose_document(resolved.plan(), IMAGES, checkout)["services"]

    assert services["host-b"]["ports"] == [
        {"host_ip": "127.0.0.1", "published": "8081", "target": 8081, "protocol": "tcp"}
    ]
    assert services["host-b"]["networks"] == ["wire", "outside"]
    assert _config(services["host-b"]).pcs == "0.0.0.0:8081"
    assert [name for name, service in services.items() if "ports" in service] == ["host-b"]
    assert _config(services["host-a"]).pcs is None


def test_images_follow_from_the_role(checkout):
    services = _document(_lab(LARGE), checkout)["services"]
    assert {name: service["image"] for name, service in services.items()} == {
        "host-a": "v:1",
        "host-a.one": "s:1",
        "host-a.two": "s:1",
        "host-a.three": "s:1",
        "host-b": "v:1",
        "host-b.one": "d:1",
        "host-c": "v:1",
        "host-c.four": "d:1",
    }


def test_digest_of_a_service_changes_with_it_and_with_nothing_else(checkout):
    plan = resolve(default_lab(), name="lab-1").plan()
    before = _digests(compose_document(plan, IMAGES, checkout))
    assert _digests(compose_document(plan, IMAGES, checkout)) == before
    after = _digests(compose_document(plan, {**IMAGES, "destination": "d:2"}, checkout))
    assert {name for name in before if before[name] != after[name]} == {"host-b.destination"}


def test_dollar_signs_reach_the_engine_as_they_are(tmp_path, checkout):
    strange = tmp_path / "$HOME"
    (strange / "compose").mkdir(parents=True)
    (strange / "compose/compose.yaml").write_text((checkout / "compose/compose.yaml").read_text())
    document = _document(default_lab(), strange)
    assert document["services"]["host-a"]["labels"][compose.CHECKOUT_LABEL].endswith("/$$HOME")


def test_document_is_json(document):
    assert json.loads(json.dumps(document)) == document


def test_templates_alone_confine_as_well(checkout):
    templates = yaml.safe_load((checkout / "compose/compose.yaml").read_text())["services"]
    for service in templates.values():
        assert {key: service[key] for key in HARDENING} == HARDENING
    assert templates["migtd"]["network_mode"] == "none"


def test_merging_loses_nothing_of_the_template():
    template = {"a": [1], "b": {"c": 1, "d": 2}, "e": 1}
    assert merged(template, {"a": [2], "b": {"d": 3, "f": 4}, "g": 5}) == {
        "a": [1, 2],
        "b": {"c": 1, "d": 3, "f": 4},
        "e": 1,
        "g": 5,
    }
    assert template == {"a": [1], "b": {"c": 1, "d": 2}, "e": 1}


def test_address_that_is_none_has_an_id(checkout):
    lab = _lab(EXTERNAL.replace(b"localhost", b"no-such-host.invalid"))
    with pytest.raises(EngineError, match=r"no-such-host\.invalid"):
        _document(lab, checkout)


def _lab(text):
    return parse_lab_file(text, "lab.yaml")


def _document(lab, checkout):
    return compose_document(resolve(lab, name="lab-1").plan(), IMAGES, checkout)


def _config(service):
    assert service["command"] == ["serve", "--config-env", compose.CONFIG_VARIABLE]
    return HostConfig.model_validate_json(service["environment"][compose.CONFIG_VARIABLE].replace("$$", "$"))


def _of_role(document, role):
    return {
        name: service for name, service in document["services"].items() if service["labels"][compose.ROLE_LABEL] == role
    }


def _mounts(service):
    return {each["source"]: each["target"] for each in service["volumes"]}


def _digests(document):
    return {name: service["labels"][compose.DIGEST_LABEL] for name, service in document["services"].items()}

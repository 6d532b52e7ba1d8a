# SPDX-License-Identifier: BSD-2-Clause-Patent
"""A lab as a Compose document: the templates of compose/compose.yaml, filled in for each host and MigTD of a plan.

How a role is confined stands in the template, for people to read; what differs per lab is added here. Lists are
added to and mappings joined, so that nothing of a template can get lost. The document stands alone: it goes to Compose
through standard input, and to a remote engine just as well.
"""

from __future__ import annotations

import copy
import hashlib
import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

import yaml

from lab import failures
from lab.engines.base import HostPlan, LabPlan, MigTdPlan, Service
from lab.engines.process import migtd_arguments
from lab.errors import EngineError
from vmm_stub.vmm.control.models import HostConfig, MigTdConfig

TEMPLATES: Final = Path("compose/compose.yaml")

LAB_LABEL: Final = "migtd-lab"
"""On every container, network and volume; its value is the lab's name. `down` needs nothing else."""
CHECKOUT_LABEL: Final = "migtd-lab.checkout"
FINGERPRINT_LABEL: Final = "migtd-lab.fingerprint"
"""Of the plan: what differs in it has the lab recreated."""
DIGEST_LABEL: Final = "migtd-lab.digest"
"""Of the service, image and templates included: what differs in it has the container recreated."""
ROLE_LABEL: Final = "migtd-lab.role"
HOST_LABEL: Final = "migtd-lab.host"
NAME_LABEL: Final = "migtd-lab.name"

WIRE: Final = "wire"
OUTSIDE: Final = "outside"
"""Second network of hosts that meet an external peer."""

CONFIG_VARIABLE: Final = "VMM_STUB_CONFIG"
"""In a host's environment: its configuration."""
MAX_VARIABLE: Final = 128 << 10
"""Bytes of one environment variable with name and closing zero (execve(2), MAX_ARG_STRLEN)."""
EVERYWHERE: Final = "0.0.0.0"  # noqa: S104 - inside a container: it has the lab's networks only
"""Address that hosts listen on."""
CONTROL_SOCKET: Final = "/run/vmm/control.sock"
CHANNELS: Final = "/run/migtd"
USER_ID: Final = 10001
"""Of the images' user; owns the channels."""

Document: TypeAlias = dict[str, Any]

_MIB: Final = 1 << 20
_CHANNEL_SLACK: Final = _MIB
"""Bytes that a channel's volume has beyond the shared memory: socket, folder, rounding."""


def compose_document(plan: LabPlan, images: Mapping[str, str], checkout: Path) -> Document:
    """The whole document of a lab.

    `images` gives a reference for each of `source`, `destination` and `vmm-stub`. `checkout` holds the templates and
    goes into a label. The MigTDs of the first host run the image `source`, all others `destination`: they differ in
    name only, so that either can be replaced by somebody's own.
    """
    templates = yaml.safe_load((checkout / TEMPLATES).read_text(encoding="utf-8"))
    common = {LAB_LABEL: plan.lab, CHECKOUT_LABEL: str(checkout)}
    services: Document = {}
    volumes: Document = {}
    for index, host in enumerate(plan.hosts):
        labels = {**common, FINGERPRINT_LABEL: plan.fingerprint, HOST_LABEL: host.name}
        template = templates["services"]["host"]
        services[host.name] = merged(template, escaped(_host(host, template, images["vmm-stub"], labels)))
        template = templates["services"]["migtd"]
        image = images["source" if index == 0 else "destination"]
        for migtd in host.migtds:
            config = _config_of(host, migtd)
            name = migtd_service_name(host.name, migtd.name)
            services[name] = merged(template, escaped(_migtd(migtd, config, template, image, labels)))
            volumes[name] = escaped(_channel(config, {**common, HOST_LABEL: host.name}))
    for service in services.values():
        text = json.dumps(service, sort_keys=True).encode()
        service["labels"][DIGEST_LABEL] = hashlib.sha256(text).hexdigest()[:16]
    networks = {
        name: merged(templates["networks"][name], escaped({"labels": dict(common)}))
        for name in (WIRE, OUTSIDE)
        if name == WIRE or any(meets_outside(host) for host in plan.hosts)
    }
    return {"services": services, "volumes": volumes, "networks": networks}


def migtd_service_name(host: str, migtd: str) -> str:
    """Name of a MigTD's service and of its channel's volume. Hosts' names have no dots: no two services meet."""
    return f"{host}.{migtd}"


def host_config(host: HostPlan) -> HostConfig:
    """The host's configuration with the places that this engine gives it."""
    migtds = [each.model_copy(update={"channel": f"{CHANNELS}/{each.name}"}) for each in host.config.migtds]
    places = {"control": CONTROL_SOCKET, "wire_address": EVERYWHERE, "wire_name": host.name}
    for each in host.published_by(Service.PCS):
        places["pcs"] = f"{EVERYWHERE}:{each.port}"
    return host.config.model_copy(update={"migtds": migtds, **places})


def meets_outside(host: HostPlan) -> bool:
    """Whether a host needs the network that leads out of the lab: both ways need one."""
    return bool(host.published) or host.reaches_outside


def merged(template: Any, own: Any) -> Any:
    """The template with `own` added: mappings are joined, lists put one behind the other, other values replaced."""
    if isinstance(template, dict) and isinstance(own, dict):
        both = {key: merged(template[key], own[key]) for key in template if key in own}
        return {**copy.deepcopy(template), **own, **both}
    if isinstance(template, list) and isinstance(own, list):
        return [*copy.deepcopy(template), *own]
    return own


def escaped(value: Any) -> Any:
    """The value with every `$` doubled: Compose replaces variables in all strings, also in those from a lab file."""
    if isinstance(value, dict):
        return {key: escaped(each) for key, each in value.items()}
    if isinstance(value, list):
        return [escaped(each) for each in value]
    return value.replace("$", "$$") if isinstance(value, str) else value


def _host(host: HostPlan, template: Document, image: str, labels: dict[str, str]) -> Document:
    own: Document = {
        "image": image,
        # Not on the command line, which every process of the machine can read: it may hold the platform's keys.
        "command": ["serve", "--config-env", CONFIG_VARIABLE],
        "environment": {CONFIG_VARIABLE: _config_text(host)},
        "mem_limit": _memory(template) + sum(each.shared_memory for each in host.config.migtds),
        "labels": {**labels, ROLE_LABEL: "host", NAME_LABEL: host.name},
        "volumes": [_mount(migtd_service_name(host.name, each.name), each) for each in host.config.migtds],
    }
    if meets_outside(host):
        own["networks"] = [OUTSIDE]
    if host.published:
        own["ports"] = [
            {"host_ip": _numeric(each.address), "published": str(each.port), "target": each.port, "protocol": "tcp"}
            for each in host.published
        ]
    return own


def _config_text(host: HostPlan) -> str:
    """A host's configuration. Raises EngineError (LAB-ENGINE-REFUSED) if no process could be given it."""
    text = host_config(host).model_dump_json()
    size = len(f"{CONFIG_VARIABLE}={text}".encode()) + 1
    if size > MAX_VARIABLE:
        detail = f"the configuration of {host.name} has {size} bytes, an environment variable at most {MAX_VARIABLE}"
        raise EngineError(failures.ENGINE_REFUSED, f"{detail}: give fewer of its MigTDs policies of their own")
    return text


def _migtd(migtd: MigTdPlan, config: MigTdConfig, template: Document, image: str, labels: dict[str, str]) -> Document:
    return {
        "image": image,
        "command": list(migtd_arguments(migtd, Path(CHANNELS, migtd.name))),
        "mem_limit": _memory(template) + config.shared_memory,
        "labels": {**labels, ROLE_LABEL: "migtd", NAME_LABEL: migtd.name},
        "volumes": [_mount(migtd_service_name(migtd.host, migtd.name), config)],
    }


def _mount(volume: str, config: MigTdConfig) -> Document:
    return {"type": "volume", "source": volume, "target": f"{CHANNELS}/{config.name}", "volume": {"nocopy": True}}


def _channel(config: MigTdConfig, labels: dict[str, str]) -> Document:
    """A channel's volume: memory only, of the images' user, bounded."""
    options = f"uid={USER_ID},gid={USER_ID},mode=0700,size={config.shared_memory + _CHANNEL_SLACK},nosuid,nodev,noexec"
    return {
        "driver": "local",
        "driver_opts": {"type": "tmpfs", "device": "tmpfs", "o": options},
        "labels": labels,
    }


def _config_of(host: HostPlan, migtd: MigTdPlan) -> MigTdConfig:
    return next(each for each in host.config.migtds if each.name == migtd.name)


def _memory(template: Document) -> int:
    """Bytes of a template's `mem_limit`, written as MiB. Shared memory that is touched counts on top of it."""
    return int(template["mem_limit"].removesuffix("m")) * _MIB


def _numeric(address: str) -> str:
    """An address of this machine as the engine takes it. Raises EngineError (LAB-ENGINE-REFUSED) if it has none."""
    try:
        return str(socket.getaddrinfo(address, None, type=socket.SOCK_STREAM)[0][4][0])
    except socket.gaierror as error:
        raise EngineError(failures.ENGINE_REFUSED, f"cannot publish on {address}: {error.strerror}") from error

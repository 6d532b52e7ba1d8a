# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The failure catalogue of the lab: bootstrap, command line, developer tasks, lab files, engines.

Standard library only: the bootstrap reads this before anything is installed.
"""

from __future__ import annotations

from migtd.errors import FailureKind

# --- bootstrap -----------------------------------------------------------------------------------------------------
PYTHON_MISSING = FailureKind(
    "LAB-PYTHON-MISSING",
    "no Python 3.11 or newer was found",
    "install one (Debian, Ubuntu: apt install python3 python3-venv) or name it with MIGTD_LAB_PYTHON=/path/to/python3",
)
VENV_MISSING = FailureKind(
    "LAB-VENV-MISSING",
    "this Python cannot make virtual environments",
    "install its venv module (Debian, Ubuntu: apt install python3-venv) or name another Python with MIGTD_LAB_PYTHON",
)
WHEELS_MISSING = FailureKind(
    "LAB-WHEELS-MISSING",
    "MIGTD_LAB_WHEELS does not name a folder with wheels",
    "fill it where there is a network with `pip download --require-hashes -r requirements.txt -d FOLDER`",
)
INSTALL_FAILED = FailureKind(
    "LAB-INSTALL-FAILED",
    "the packages of requirements.txt could not be installed into .venv",
    "see pip's message above; without a network name a folder of wheels with MIGTD_LAB_WHEELS=FOLDER",
)
PLATFORM_UNSUPPORTED = FailureKind(
    "LAB-PLATFORM-UNSUPPORTED",
    "the lab runs on Linux only",
    "use a Linux machine or virtual machine; `./inv doctor` works here and says more",
)

# --- command line --------------------------------------------------------------------------------------------------
USAGE_UNKNOWN_TASK = FailureKind(
    "LAB-USAGE-UNKNOWN-TASK",
    "there is no such task",
    "`./inv --list` shows them all",
)
USAGE_UNKNOWN_FLAG = FailureKind(
    "LAB-USAGE-UNKNOWN-FLAG",
    "the task does not know this flag",
    "`./inv TASK --help` shows its flags",
)
USAGE_VALUE_MISSING = FailureKind(
    "LAB-USAGE-VALUE-MISSING",
    "a value is missing on the command line",
    "`./inv TASK --help` shows what each flag takes",
)
USAGE_VALUE_INVALID = FailureKind(
    "LAB-USAGE-VALUE-INVALID",
    "a value on the command line is not of the kind that its flag takes",
    "`./inv TASK --help` shows what each flag takes",
)
USAGE_UNREADABLE = FailureKind(
    "LAB-USAGE-UNREADABLE",
    "the command line cannot be understood",
    "`./inv --help` shows its form; write --flag=VALUE where a value could be taken for a task",
)
DISK_FULL = FailureKind(
    "LAB-DISK-FULL",
    "there is no room left to write to",
    "make room where standard output leads, for the checkout's .cache, and for the folder that `./inv doctor` names",
)
INTERNAL = FailureKind(
    "LAB-INTERNAL",
    "the lab met a state that its authors thought impossible",
    "please report it with the traceback; MIGTD_LAB_TRACEBACK=1 prints it to the terminal",
)

# --- developer tasks -----------------------------------------------------------------------------------------------
TOOL_MISSING = FailureKind(
    "LAB-TOOL-MISSING",
    "a development tool is not in .venv",
    "remove .venv and run `./inv` again: it installs what the lock names",
)
CLEAN_LABS_RUNNING = FailureKind(
    "LAB-CLEAN-LABS-RUNNING",
    "labs of this checkout are running",
    "take them down with `./inv down --all`, or clean all the same with `./inv clean --force`",
)
CONFORM_FILE = FailureKind(
    "LAB-CONFORM-FILE",
    "a case file cannot be read, or is of a format that is not known",
    "name a JSON file whose `meta.format` is `policy-cases 1`",
)

# --- lab files, names, choices -------------------------------------------------------------------------------------
FILE_INVALID = FailureKind(
    "LAB-FILE-INVALID",
    "the lab file is not valid",
    "each line names the place and the key; docs/lab-file.md and docs/lab.schema.json give the form",
)
FILE_MISSING = FailureKind(
    "LAB-FILE-MISSING",
    "a file that was named cannot be read",
    "correct the name; `./inv lab.init` writes a commented lab file, `./inv pki.make` makes a PKI",
)
FILE_EXISTS = FailureKind(
    "LAB-FILE-EXISTS",
    "there is something of that name already and it is left as it is",
    "give another name, or move away what is there",
)
FILE_UNWRITABLE = FailureKind(
    "LAB-FILE-UNWRITABLE",
    "the file cannot be written",
    "name one in a folder that exists and is yours",
)
NAME_INVALID = FailureKind(
    "LAB-NAME-INVALID",
    "this cannot be the name of a lab",
    "use 1 to 32 of the characters a-z, 0-9 and -, with no - at either end",
)
VALUE_UNKNOWN = FailureKind(
    "LAB-VALUE-UNKNOWN",
    "this value is not known",
    "use one of the values listed",
)
COMES_LATER = FailureKind(
    "LAB-COMES-LATER",
    "this value is known, and this version of the lab cannot do it yet",
    "use one of the values listed, or a later version of the lab",
)

# --- running a lab -------------------------------------------------------------------------------------------------
ENGINE_UNAVAILABLE = FailureKind(
    "LAB-ENGINE-UNAVAILABLE",
    "the engine that was asked for cannot be used here",
    "`./inv doctor` says what is missing; `--engine process` needs no container engine",
)
NOT_RUNNING = FailureKind(
    "LAB-NOT-RUNNING",
    "no lab of that name is running",
    "start one with `./inv up`; `./inv status --all-checkouts` shows all labs",
)
DIFFERS = FailureKind(
    "LAB-DIFFERS",
    "the running lab was started from another lab file",
    "give its file with --lab, or let `./inv up` recreate what differs",
)
BUSY = FailureKind(
    "LAB-BUSY",
    "another command is starting or removing a lab of that name",
    "wait for it to end, or give this lab another name with --name",
)
STATE_UNSAFE = FailureKind(
    "LAB-STATE-UNSAFE",
    "a folder for what nobody else may write or read cannot be used",
    "it must be yours with mode 0700: remove it or chmod it; XDG_RUNTIME_DIR says where labs keep their state",
)
SOCKET_PATH_TOO_LONG = FailureKind(
    "LAB-SOCKET-PATH-TOO-LONG",
    "the path of a unix socket is longer than the 107 bytes that Linux allows",
    "use shorter names, or set XDG_RUNTIME_DIR to a folder with a shorter path",
)
ROLE_START_FAILED = FailureKind(
    "LAB-ROLE-START-FAILED",
    "a role of the lab could not be started or ended at once",
    "see what it printed with `./inv logs`",
)
ROLE_ENDED = FailureKind(
    "LAB-ROLE-ENDED",
    "a part of the lab does not run any more",
    "`./inv up` starts it again; `./inv logs` shows its last words, if the engine still has them",
)
ROLE_UNKNOWN = FailureKind(
    "LAB-ROLE-UNKNOWN",
    "the lab has no role of that name",
    "`./inv status` lists hosts and MigTDs",
)
PROCESS_STUCK = FailureKind(
    "LAB-PROCESS-STUCK",
    "a process of the lab could not be ended",
    "the message names it; its state folder is kept so that `./inv down` can be tried again",
)
HOST_NOT_READY = FailureKind(
    "LAB-HOST-NOT-READY",
    "a host of the lab did not become ready in time",
    "see what it and its MigTDs printed with `./inv logs`",
)
HOST_LOST = FailureKind(
    "LAB-HOST-LOST",
    "a host of the lab no longer answers",
    "see what it printed with `./inv logs`; `./inv up` starts it again",
)
OUTCOME_LATE = FailureKind(
    "LAB-OUTCOME-LATE",
    "a host did not tell the outcome although every deadline has passed",
    "see the history with `./inv events`, and raise `deadlines` if the machine is merely slow",
)
DESTINATION_ABSENT = FailureKind(
    "LAB-DESTINATION-ABSENT",
    "the source was not started because its destination does not listen",
    "the destination's own error names the cause, such as a port in use",
)
TARGET_TD_DIFFERS = FailureKind(
    "LAB-TARGET-TD-DIFFERS",
    "a target TD of that UUID and binding handle exists on the host with other properties",
    "take the lab down and start it again, or give the target TD another uuid",
)


# --- containers ----------------------------------------------------------------------------------------------------
ENGINE_MISSING = FailureKind(
    "LAB-ENGINE-MISSING",
    "there is no container engine's command line client",
    "install Docker (Debian: apt install docker.io docker-cli), or use `--engine process`",
)
ENGINE_DENIED = FailureKind(
    "LAB-ENGINE-DENIED",
    "the container engine does not let this user in",
    "join its group (usermod -aG docker USER, then log in again), use a rootless engine, or `--engine process`",
)
ENGINE_LOST = FailureKind(
    "LAB-ENGINE-LOST",
    "the container engine does not answer",
    "start it (systemctl start docker), look at DOCKER_HOST and `docker context ls`, or use `--engine process`",
)
ENGINE_REFUSED = FailureKind(
    "LAB-ENGINE-REFUSED",
    "the container engine could not do what was asked",
    "its own words are above; `./inv doctor` checks the engine",
)
COMPOSE_MISSING = FailureKind(
    "LAB-COMPOSE-MISSING",
    "there is no Docker Compose",
    "remove .venv and run `./inv` again (it installs one), or install the Compose plugin of your engine",
)
PORT_IN_USE = FailureKind(
    "LAB-PORT-IN-USE",
    "a port that the lab is to publish is in use on this machine",
    "end what listens there (ss -ltnp shows it), or give `external` or `pcs` another port in the lab file",
)
BASE_TOOL_MISSING = FailureKind(
    "LAB-BASE-TOOL-MISSING",
    "the base image cannot be built from Debian packages: mmdebstrap or Debian's keys are missing",
    "install them (apt install mmdebstrap debian-archive-keyring), or give the engine a registry to pull from",
)
BASE_FAILED = FailureKind(
    "LAB-BASE-FAILED",
    "the base image could not be built from Debian packages",
    "mmdebstrap's last lines are above; it needs a Debian mirror, and root or user namespaces",
)
IMAGE_WHEELS_FAILED = FailureKind(
    "LAB-IMAGE-WHEELS-FAILED",
    "the Python packages of the images could not be fetched",
    "see pip's last lines above; without a network name a folder of wheels for their Python with MIGTD_LAB_WHEELS",
)
IMAGE_BUILD_FAILED = FailureKind(
    "LAB-IMAGE-BUILD-FAILED",
    "an image of the lab could not be built",
    "the builder's last lines are above; `./inv images` builds the images alone",
)

# --- stand-alone mode ----------------------------------------------------------------------------------------------
STANDALONE_USAGE = FailureKind(
    "LAB-STANDALONE-USAGE",
    "the command line of the stand-alone mode is wrong",
    "`python -m migtd --help` shows every flag",
)
STANDALONE_LATER = FailureKind(
    "LAB-STANDALONE-LATER",
    "this option belongs to a mode that this version does not have",
    "leave it out: this version migrates and rebinds with --session ra-tls, and has no Azure modes",
)

# --- evidence ------------------------------------------------------------------------------------------------------
EVIDENCE_INCOMPLETE = FailureKind(
    "LAB-EVIDENCE-INCOMPLETE",
    "an attestation mode lacks a file that it cannot do without",
    "captured needs --quote-file and --collateral-file, and --root-ca-file where the collateral is in the packed form; "
    "a policy v2 needs its issuer chain, --policy-issuer-chain-file",
)
EVIDENCE_UNUSED = FailureKind(
    "LAB-EVIDENCE-UNUSED",
    "a file or setting was given that the attestation mode never looks at",
    "leave it out, or choose the mode that it is for; docs/lab-file.md says which",
)
EVIDENCE_INVALID = FailureKind(
    "LAB-EVIDENCE-INVALID",
    "what a lab shall attest with cannot be used",
    "correct or replace what is named; `./inv pki.make` makes a PKI, docs/lab-file.md describes platforms",
)

PKI_ABSENT = FailureKind(
    "LAB-PKI-ABSENT",
    "this lab has no PKI",
    "start it with attestation lab; other modes show quotes from elsewhere, or none",
)

# --- bench ---------------------------------------------------------------------------------------------------------
BENCH_SESSION_FAILED = FailureKind(
    "LAB-BENCH-SESSION-FAILED",
    "a session did not end in success, so its time means nothing",
    "run `./inv up`: it shows why",
)
BENCH_COMMAND_FAILED = FailureKind(
    "LAB-BENCH-COMMAND-FAILED",
    "a command whose time was to be measured failed",
    "run it by itself; its last lines are above",
)


def catalogue() -> dict[str, FailureKind]:
    """Every kind of this module by its id, in the order of definition."""
    return {kind.id: kind for kind in globals().values() if isinstance(kind, FailureKind)}

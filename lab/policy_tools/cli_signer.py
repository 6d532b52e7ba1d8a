# SPDX-License-Identifier: BSD-2-Clause-Patent
"""`json-signer`: sign and verify JSON documents (policy.md 5.4)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from lab.policy_tools import signer
from lab.policy_tools.cli import ToolParser, required, run
from lab.policy_tools.files import read_file, write_file


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = ToolParser(prog="json-signer", description="Sign a JSON document, or verify a signed one.")
    made.add_argument("-n", "--name", required=True, help="name of the signed value, such as policyData")
    made.add_argument("-i", "--input", required=True, metavar="FILE", help="document to sign or to verify")
    made.add_argument("-o", "--output", metavar="FILE", help="file to write; needed to sign and to finalize")
    made.add_argument("--verify", action="store_true", help="verify with --public-key; comes before the other two")
    made.add_argument("--sign", action="store_true", help="sign with --private-key; comes before --finalize")
    made.add_argument("--finalize", action="store_true", help="join the input and --signature, unverified")
    made.add_argument("--detach", action="store_true", help="the signature is a file of its own")
    made.add_argument("--public-key", metavar="FILE", help="P-384 public key, PEM")
    made.add_argument("--private-key", metavar="FILE", help="P-384 private key, PKCS#8 PEM without a password")
    made.add_argument("--signature", metavar="FILE", help="DER signature: for --finalize, and --verify --detach")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tool; its exit status."""
    made = parser()
    given = sys.argv[1:] if arguments is None else arguments
    return run(made, given, lambda options: _run(made, options), _purpose(given))


def _purpose(arguments: Sequence[str]) -> str:
    for operation, purpose in (
        ("--verify", "verify signature"),
        ("--sign", "sign input"),
        ("--finalize", "finalize input"),
    ):
        if operation in arguments:
            return purpose
    return "sign or verify"


def _run(made: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    for operation, needed in (("verify", "public_key"), ("sign", "private_key"), ("finalize", "signature")):
        if getattr(options, operation) and getattr(options, needed) is None:
            made.error(f"--{operation} needs --{needed.replace('_', '-')}")
    data = read_file(options.input)
    if options.verify:
        _verify(options, data)
    elif options.sign:
        key = read_file(options.private_key)
        make = signer.sign_detached(data, key) if options.detach else signer.sign(options.name, data, key)
        write_file(required(options.output, "--output"), make)
    elif options.finalize:
        made_document = signer.finalize(options.name, data, read_file(options.signature))
        write_file(required(options.output, "--output"), made_document)
    else:
        required(None, "one of --verify, --sign and --finalize")


def _verify(options: argparse.Namespace, data: bytes) -> None:
    key = read_file(options.public_key)
    if options.detach:
        signature = read_file(required(options.signature, "--signature"))
        signer.verify_detached(data, key, signature)
    else:
        signer.verify_signed(options.name, data, key)
    sys.stdout.write("the signature is valid\n")


if __name__ == "__main__":
    sys.exit(main())

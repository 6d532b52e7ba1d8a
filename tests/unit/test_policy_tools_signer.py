# SPDX-License-Identifier: BSD-2-Clause-Patent
"""json-signer: what is signed, byte for byte, what is refused and by which name, and the exit statuses."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from lab.policy_tools import cli_signer, compact, signer
from lab.policy_tools.errors import SignerError, SignerErrorName
from tests.unit.policy_tool_world import make_signer

SIGNER = make_signer()
DATA = '{"b":[1,-5,18446744073709551615,0.1,1e30],"a":"\\u0001\\n\\"ü/\x7f","z":{},"y":[],"x":null}'.encode()


def refused(call, *arguments):
    with pytest.raises(SignerError) as caught:
        call(*arguments)
    return caught.value


def test_signed_document_holds_the_text_and_an_upper_case_der_signature():
    document = signer.sign("policyData", DATA, SIGNER.private)
    head, _, tail = document.partition(b',"signature":"')
    assert head == b'{"policyData":' + DATA
    assert tail.endswith(b'"}')
    text = tail[:-2].decode()
    assert text == text.upper()
    assert bytes.fromhex(text)[:1] == b"\x30"
    signer.verify_signed("policyData", document, SIGNER.public)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b'{"a":1}\n', "white space at character 7"),
        (b'{"a": 1}', "white space at character 5"),
        (b'{"a":1,"a":1}', "the key 'a' comes twice"),
        (b'[{"k":{"q":1,"q":2}}]', "the key 'q' comes twice"),
        (b'["\\/"]', "an escape"),
        (b'["\\u0041"]', "an escape"),
        (b'["\\u001F"]', "an escape"),
        (b"[-0]", "the number -0"),
        (b"[1.50]", "the number 1.50"),
        (b"[1e0]", "the number 1e0"),
        (b"[1E30]", "the number 1E30"),
        (b"[100000000000000000000.0]", "the number 100000000000000000000.0"),
        (b"[18446744073709551616]", "the number 18446744073709551616"),
        (b"[-9223372036854775809]", "the number -9223372036854775809"),
    ],
)
def test_text_that_is_not_compact_is_refused_with_the_reason(text, reason):
    error = refused(signer.sign, "x", text, SIGNER.private)
    assert error.name is SignerErrorName.NotCanonical
    assert reason in error.detail
    assert refused(signer.sign_detached, text, SIGNER.private).name is SignerErrorName.NotCanonical


@pytest.mark.parametrize(
    "text",
    [
        b"null", b"true", b'""', b"[]", b"{}", b"0", b"-1", b"-0.0", b"1.0", b"0.00001", b"1e-6", b"1.5e300", b"1e16",
        b"1000000000000000.0", b"-9223372036854775808", b'"\x7f"', b"[" * 127 + b"]" * 127,
    ],
)  # fmt: skip
def test_compact_text_of_any_kind_is_signed(text):
    document = signer.sign("x", text, SIGNER.private)
    assert document.startswith(b'{"x":' + text + b',"signature":"')


@pytest.mark.parametrize(
    "text", [b"", b"{", b"\xef\xbb\xbf{}", b"\xff", b"NaN", b"01", b'["\\ud800"]', b"1e400", b"{} {}",
             b"[" * 128 + b"]" * 128],
)  # fmt: skip
def test_what_is_no_json_is_refused_by_name(text):
    assert refused(signer.sign, "x", text, SIGNER.private).name is SignerErrorName.InvalidJson
    assert refused(signer.finalize, "x", text, b"\x01").name is SignerErrorName.InvalidJson


def test_finalize_makes_the_input_compact_and_puts_the_signature_beside_it():
    made = signer.finalize("tdIdentity", b'{ "b" : 1.50,\n"a":"\\u0041", "b":2 }', bytes.fromhex("30ab"))
    assert made == b'{"tdIdentity":{"b":2,"a":"A"},"signature":"30AB"}'


def test_detached_signature_verifies_over_the_whole_input():
    signature = signer.sign_detached(DATA, SIGNER.private)
    signer.verify_detached(DATA, SIGNER.public, signature)
    signer.verify_signed("x", signer.finalize("x", DATA, signature), SIGNER.public)
    assert refused(signer.verify_detached, DATA + b" ", SIGNER.public, signature).name is SignerErrorName.Verify


def test_every_changed_byte_of_the_value_is_refused_and_white_space_around_it_is_not():
    document = signer.sign("x", b'{"a":"b","c":12}', SIGNER.private)
    head, _, tail = document.partition(b',"signature"')
    spaced = b' {\n"x" : ' + head[len(b'{"x":') :] + b' ,\t"signature"' + tail + b"\n"
    signer.verify_signed("x", spaced, SIGNER.public)
    for at in range(len(b'{"x":'), len(head)):
        for changed in (bytes([document[at] ^ 1]), b" " + document[at : at + 1]):
            forged = document[:at] + changed + document[at + 1 :]
            names = (SignerErrorName.Verify, SignerErrorName.InvalidJson, SignerErrorName.InvalidSignedJson)
            if at > len(b'{"x":') or not changed.startswith(b" "):
                assert refused(signer.verify_signed, "x", forged, SIGNER.public).name in names


@pytest.mark.parametrize(
    ("document", "name"),
    [
        (b'{"x":1}', "InvalidSignedJson"),
        (b'{"x":1,"signature":"00","y":2}', "InvalidSignedJson"),
        (b'{"y":1,"signature":"00"}', "InvalidSignedJson"),
        (b'{"x":1,"signature":5}', "InvalidSignedJson"),
        (b'{"x":1,"signature":"0"}', "InvalidString"),
        (b'{"x":1,"signature":"0x"}', "InvalidString"),
        (b'{"x":1,"signature":"-f"}', "InvalidString"),
        ('{"x":1,"signature":"é"}'.encode(), "InvalidString"),
        (b'{"x":1,"signature":"+f"}', "Verify"),
        (b'{"x":1,"signature":""}', "Verify"),
        (b'[1,"00"]', "InvalidJson"),
        (b'{"x":1,"signature":"00"', "InvalidJson"),
    ],
)
def test_signed_documents_of_another_form_are_refused_by_name(document, name):
    assert refused(signer.verify_signed, "x", document, SIGNER.public).name.name == name


def test_keys_of_another_kind_are_refused_by_name():
    other = ec.generate_private_key(ec.SECP256R1())
    private = other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = other.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    p384 = ec.generate_private_key(ec.SECP384R1())
    old_form = p384.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    document = signer.sign("x", b"1", SIGNER.private)
    assert refused(signer.sign, "x", b"1", private).name is SignerErrorName.Sign
    assert refused(signer.sign, "x", b"1", old_form).name is SignerErrorName.Sign
    assert refused(signer.sign, "x", b"1", b"no key").name is SignerErrorName.InvalidKey
    assert refused(signer.verify_signed, "x", document, public).name is SignerErrorName.Verify
    assert refused(signer.verify_signed, "x", document, b"no key").name is SignerErrorName.InvalidKey
    assert refused(signer.verify_signed, "x", document, make_signer().public).name is SignerErrorName.Verify


def test_a_document_of_a_megabyte_and_a_hundred_thousand_keys_is_compact_again():
    value = {f"key{n}": [n, f"ü{n}", n / 7] for n in range(40_000)}
    text = compact.push_json(value)
    assert json.loads(text) == value
    assert compact.push_json(compact.pull_json(text, "it")) == text


@pytest.fixture
def files(tmp_path):
    for name, content in {
        "data": DATA, "key": SIGNER.private, "pub": SIGNER.public, "spaced": b"{ }", "der": b"\x30\x00"
    }.items():  # fmt: skip
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_console_script_signs_and_verifies(files, capsys, monkeypatch):
    monkeypatch.chdir(files)
    assert cli_signer.main(["-n", "x", "-i", "data", "-o", "out", "--sign", "--private-key", "key"]) == 0
    assert cli_signer.main(["--name", "x", "--input=out", "--verify", "--public-key", "pub"]) == 0
    assert capsys.readouterr().out.count("\n") == 1
    arguments = ["-n", "x", "-i", "data", "-o", "sig", "--sign", "--detach", "--private-key", "key"]
    assert cli_signer.main(arguments) == 0
    assert (files / "sig").read_bytes()[:1] == b"\x30"
    verify = ["-n", "x", "-i", "data", "--verify", "--detach", "--public-key", "pub", "--signature", "sig"]
    assert cli_signer.main(verify) == 0
    assert cli_signer.main(["-n", "x", "-i", "data", "-o", "out2", "--finalize", "--signature", "sig"]) == 0
    signer.verify_signed("x", (files / "out2").read_bytes(), SIGNER.public)


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["-i", "data", "--verify", "--public-key", "pub"], 2),
        (["-n", "x", "--verify", "--public-key", "pub"], 2),
        (["-n", "x", "-i", "data", "--verify"], 2),
        (["-n", "x", "-i", "data", "--sign", "-o", "out"], 2),
        (["-n", "x", "-i", "data", "--finalize", "-o", "out"], 2),
        (["-n", "x", "-n", "y", "-i", "data"], 2),
        (["-n", "x", "-i", "data", "--nonsense"], 2),
        (["-n", "x", "-i", "data", "--sig", "der"], 2),
        (["-n", "x", "-i", "data"], 1),
        (["-n", "x", "-i", "missing", "--sign", "--private-key", "key", "-o", "out"], 1),
        (["-n", "x", "-i", "data", "--sign", "--private-key", "key"], 1),
        (["-n", "x", "-i", "data", "--finalize", "--signature", "der"], 1),
        (["-n", "x", "-i", "data", "--verify", "--detach", "--public-key", "pub"], 1),
        (["-n", "x", "-i", "data", "--verify", "--public-key", "pub"], 1),
        (["-n", "x", "-i", "data", "--sign", "--private-key", "key", "-o", "no/such/out"], 1),
        (["--help"], 0),
    ],
)
def test_exit_statuses_are_the_references(files, monkeypatch, arguments, status):
    monkeypatch.chdir(files)
    assert cli_signer.main(arguments) == status
    assert not (files / "out").exists()


def test_failure_is_told_with_the_references_name_first(files, monkeypatch, capsys):
    monkeypatch.chdir(files)
    arguments = ["-n", "x", "-i", "spaced", "-o", "out", "--sign", "--private-key", "key"]
    assert cli_signer.main(arguments) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Failed to ")
    assert lines[0].endswith(": NotCanonical")
    assert lines[1].startswith("LAB-SIGNER-NOT-CANONICAL: ")
    assert not (files / "out").exists()


def test_verify_comes_before_sign_and_sign_before_finalize(files, monkeypatch):
    monkeypatch.chdir(files)
    both = ["-n", "x", "-i", "data", "-o", "out", "--finalize", "--signature", "der", "--sign", "--private-key", "key"]
    assert cli_signer.main(both) == 0
    signer.verify_signed("x", (files / "out").read_bytes(), SIGNER.public)
    assert cli_signer.main([*both, "--verify", "--public-key", "pub"]) == 1


def test_output_replaces_a_file_keeps_its_mode_and_follows_a_link(files, monkeypatch):
    monkeypatch.chdir(files)
    (files / "real").write_bytes(b"old")
    (files / "real").chmod(0o600)
    (files / "link").symlink_to("real")
    assert cli_signer.main(["-n", "x", "-i", "data", "-o", "link", "--finalize", "--signature", "der"]) == 0
    assert (files / "link").is_symlink()
    assert (files / "real").read_bytes() == signer.finalize("x", DATA, b"\x30\x00")
    assert (files / "real").stat().st_mode & 0o777 == 0o600
    assert not [each for each in files.iterdir() if each.name.startswith(".")]


@pytest.mark.shared
def test_signed_policies_of_the_vectors_come_out_byte_for_byte(shared):
    folder = shared / "vectors/policy/upstream/src/policy/test/policy_v2"
    policy, data = (folder / "policy_v2.json").read_bytes(), (folder / "policy_data.json").read_bytes()
    signature = bytes.fromhex(json.loads(policy)["signature"])
    assert signer.finalize("policyData", data, signature) == policy

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""migtd-hash: MRTD and RTMRs of made-up images against a second computation written out here, and hostile images."""

from __future__ import annotations

import hashlib
import json
import struct

import pytest

from lab.policy_tools import cli_image_hash, firmware_volume, igvm, image_hash, tdvf
from lab.policy_tools.errors import ToolError
from lab.policy_tools.firmware_volume import POLICY, POLICY_ISSUER_CHAIN, ROOT_CA
from lab.policy_tools.image_hash import ImageFormat, Variant
from tests.unit.policy_tool_world import FILES, MANIFEST, bin_image, igvm_image, volume
from vmm_stub.tdx_module.report import TdInfo
from vmm_stub.tdx_module.report import servtd_info_hash as module_info_hash

BODY = bytes(range(256)) * 20  # 5120 bytes: a page and a quarter
AT = 0xA0000
SECTIONS = [
    (AT, len(BODY), 0xFFC00000, 0x3000, 0, 1),  # BFV: measured, padded with zeros
    (0, 0xA0000, 0xFF000000, 0xA0000, 1, 0),  # CFV: added only
    (0, 0, 0x800000, 0x1000, 3, 0),  # temporary memory
    (0, 0, 0, 0x40000000, 4, 2),  # permanent memory: not at all
    (AT, 100, 0, 0, 7, 0),  # TD info: nowhere
]


def sha(data):
    return hashlib.sha384(data).digest()


def record(name, address):
    return name.ljust(16, b"\0") + struct.pack("<Q", address) + bytes(104)


def expected_bin_mrtd():
    told = b""
    content = BODY.ljust(0x3000, b"\0")
    for page in range(3):
        told += record(b"MEM.PAGE.ADD", 0xFFC00000 + page * 4096)
        for chunk in range(page * 4096, page * 4096 + 4096, 256):
            told += record(b"MR.EXTEND", 0xFFC00000 + chunk) + content[chunk : chunk + 256]
    for page in range(160):
        told += record(b"MEM.PAGE.ADD", 0xFF000000 + page * 4096)
    return sha(told + record(b"MEM.PAGE.ADD", 0x800000))


SEPARATOR = sha(bytes(48) + sha(bytes(4)))


def tdinfo(mrtd, rtmr1, rtmr2):
    fields = [bytes(8), bytes.fromhex("e71a060000000000"), mrtd, bytes(48), b"\x0a" * 48, b"\1" + bytes(47)]
    return b"".join([*fields, SEPARATOR, rtmr1, rtmr2]).ljust(512, b"\0")


RTMR2_V1 = sha(sha(bytes(48) + sha(FILES[POLICY])) + sha(FILES[ROOT_CA]))
RTMR1_V2 = sha(SEPARATOR + sha(FILES[POLICY_ISSUER_CHAIN]))
RTMR2_NONE = sha(bytes(48) + sha(b"test_disable_ra_and_accept_all"))


@pytest.mark.parametrize("table", [True, False])
@pytest.mark.parametrize(
    ("variant", "rtmr1", "rtmr2"),
    [
        (Variant(), SEPARATOR, RTMR2_V1),
        (Variant(policy_v2=True), RTMR1_V2, sha(bytes(48) + sha(FILES[POLICY]))),
        (Variant(ra_disabled=True), SEPARATOR, RTMR2_NONE),
        (Variant(policy_v2=True, ra_disabled=True), RTMR1_V2, RTMR2_NONE),
    ],
)
def test_bin_image_gives_the_tdinfo_of_the_rules(table, variant, rtmr1, rtmr2):
    image = bin_image(SECTIONS, BODY, table=table)
    made = image_hash.tdinfo_of_image(image, ImageFormat.BIN, MANIFEST, variant)
    assert made == tdinfo(expected_bin_mrtd(), rtmr1, rtmr2)


def test_igvm_image_gives_the_tdinfo_of_the_rules():
    page = bytes(range(256)) * 16
    image = igvm_image([(0x1000, page, 0), (0x2000, b"", 0), (0x3000, page, 4), (0x4000, page, 2)])
    told = record(b"MEM.PAGE.ADD", 0xFF000000) + record(b"MEM.PAGE.ADD", 0x1000)
    for chunk in range(0, 4096, 256):
        told += record(b"MR.EXTEND", 0x1000 + chunk) + page[chunk : chunk + 256]
    told += record(b"MEM.PAGE.ADD", 0x2000) + record(b"MEM.PAGE.ADD", 0x4000)
    made = image_hash.tdinfo_of_image(image, ImageFormat.IGVM, MANIFEST, Variant())
    assert made[16:64] == sha(told)
    # The volume is cut to the pages in use and filled with zeros: its files are still found.
    assert made == tdinfo(sha(told), SEPARATOR, RTMR2_V1)


def test_hashes_are_those_of_the_tdx_module():
    made = TdInfo(1, 2, *(bytes([n]) * 48 for n in range(1, 9)))
    for attr in (0, 1 << 32, 1 << 36, 1 << 41, 0x3FF << 32):
        assert image_hash.servtd_info_hash(made.push(), attr) == module_info_hash(made, attr)
    info = bytes(range(48))
    assert image_hash.servtd_hash(info, 5) == sha(info + bytes(2) + struct.pack("<Q", 5))


# --- the configuration volume --------------------------------------------------------------------------------------
def test_volume_finds_its_files_also_large_ones():
    large = bytes(0x1000100)
    made = firmware_volume.make_volume([(POLICY, b"p"), (ROOT_CA, large), (POLICY_ISSUER_CHAIN, b"c")], 0x1800000)
    assert [len(firmware_volume.find_raw_file(made, n) or b"") for n in FILES] == [1, len(large), 1]
    header = struct.unpack_from("<28H", made)
    assert sum(header) & 0xFFFF == 0
    assert made[40:44] == b"_FVH"
    assert struct.unpack_from("<H", made, 48)[0] == 120


def test_volume_that_is_none_has_no_files():
    sound = volume()
    assert firmware_volume.find_raw_file(sound, POLICY) == FILES[POLICY]
    for at in (0, 33, 40, 48, 50, 55):
        broken = bytearray(sound)
        broken[at] ^= 1
        assert firmware_volume.find_raw_file(bytes(broken), POLICY) is None
    for wrong in (b"", sound[:55], sound[:-1], sound + b"\0"):
        assert firmware_volume.find_raw_file(wrong, POLICY) is None


def test_walk_ends_at_a_file_whose_header_does_not_add_up():
    sound = bytearray(volume())
    first = 120
    second = first + -(-(24 + len(FILES[POLICY])) // 8) * 8
    sound[first + 20] ^= 1  # the first file's size
    assert firmware_volume.find_raw_file(bytes(sound), ROOT_CA) is None
    sound[first + 20] ^= 1
    assert firmware_volume.find_raw_file(bytes(sound), ROOT_CA) == b"root"
    sound[second + 23] ^= 1
    assert firmware_volume.find_raw_file(bytes(sound), POLICY) == FILES[POLICY]
    assert firmware_volume.find_raw_file(bytes(sound), POLICY_ISSUER_CHAIN) is None


# --- hostile images ------------------------------------------------------------------------------------------------
def refused(call, *arguments):
    with pytest.raises(ToolError) as caught:
        call(*arguments)
    return caught.value.kind.id


@pytest.mark.parametrize(
    "section",
    [
        (0, 0, 0x1001, 0x1000, 0, 0),
        (0, 0, 0x1000, 0x1001, 0, 0),
        (0, 0x2000, 0x1000, 0x1000, 0, 0),
        (0, 0, 0x1000, 0x1000, 9, 0),
        (0xFFFFF000, 0x1000, 0x1000, 0x1000, 0, 1),
        (0, 0, 0xFFFFFFFFFFFFF000, 0x2000, 0, 0),
        (0, 0, 0x1000, 1 << 62, 0, 0),
        (0, 0, 0x1000, 1 << 62, 0, 1),
        (0, 0, 0x1000, 1 << 62, 0, 3),
    ],
)
def test_sections_that_cannot_be_are_refused_at_once(section):
    image = bin_image([section], b"")
    kind = refused(image_hash.tdinfo_of_image, image, ImageFormat.BIN, MANIFEST, Variant())
    assert kind == "LAB-IMAGE-INVALID"


def test_memory_that_is_not_measured_may_be_of_any_size():
    image = bin_image([(0, 0, 0, 1 << 63, 4, 2)], b"")
    assert image_hash.tdinfo_of_image(image, ImageFormat.BIN, MANIFEST, Variant())[16:64] == sha(b"")


def test_metadata_that_is_not_there_is_refused():
    image = bin_image(SECTIONS, BODY)
    for wrong in (b"", bytes(64), bytes(0xA0000), image[:-1], image.replace(b"TDVF", b"TDVX")):
        assert refused(tdvf.pull_sections, wrong) == "LAB-IMAGE-INVALID"
    at = len(image) - 48 - 2
    for length in (0, 17, 18, 40):
        changed = image[:at] + struct.pack("<H", length) + image[at + 2 :]
        assert refused(tdvf.pull_sections, changed) == "LAB-IMAGE-INVALID"
    none = bin_image([], BODY)
    assert refused(tdvf.pull_sections, none) == "LAB-IMAGE-INVALID"


def test_igvm_headers_that_lie_are_refused():
    image = igvm_image([(0x1000, bytes(4096), 0)])
    for at in range(24 + 32):
        changed = bytearray(image)
        changed[at] ^= 0x80
        if at not in range(16, 20):  # the total size may be smaller than the file only by the checksum's leave
            assert refused(igvm.pull_igvm, bytes(changed)) == "LAB-IMAGE-INVALID"
    for wrong in (b"", image[:23], image[:60], image[:-1]):
        assert refused(igvm.pull_igvm, wrong) == "LAB-IMAGE-INVALID"


def test_files_that_are_measured_must_be_there():
    for files, variant in (
        ({ROOT_CA: b"r"}, Variant()),
        ({POLICY: b"p"}, Variant()),
        ({POLICY: b"p"}, Variant(policy_v2=True)),
        ({POLICY: b"p"}, Variant(policy_v2=True, ra_disabled=True)),
    ):
        image = igvm_image([], files)
        kind = refused(image_hash.tdinfo_of_image, image, ImageFormat.IGVM, MANIFEST, variant)
        assert kind == "LAB-IMAGE-FILE-MISSING"


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        b"[]",
        b"{}",
        MANIFEST.replace(b"xfam", b"xfan"),
        MANIFEST.replace(b"0a0a", b"0a0", 1),
        MANIFEST.replace(b"e71a", b"+71a"),
    ],
)
def test_manifests_of_another_form_are_refused(manifest):
    kind = refused(image_hash.tdinfo_of_image, igvm_image([]), ImageFormat.IGVM, manifest, Variant())
    assert kind == "LAB-MANIFEST-INVALID"


# --- the console script --------------------------------------------------------------------------------------------
@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image = bin_image(SECTIONS, BODY)
    mapping = b'{"z":0.5,"svnMappings":[{"tdMeasurements":{"rtmr0":"00","mrtd":"00"},"isvsvn":1},{"isvsvn":2}]}\n'
    for name, content in {"m": MANIFEST, "x.bin": image, "x.img": image, "map": mapping, "y.bin.igvm": image}.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


TDINFO = tdinfo(expected_bin_mrtd(), SEPARATOR, RTMR2_V1)
FIRST = sha(TDINFO)


@pytest.mark.usefixtures("files")
def test_default_output_is_hex_and_a_newline(capsys):
    assert cli_image_hash.main(["-m", "m", "-i", "x.bin"]) == 0
    assert capsys.readouterr() == (FIRST.hex() + "\n", "")
    assert cli_image_hash.main(["-m", "m", "-i", "x.bin", "-c", "-s", "0"]) == 0
    assert capsys.readouterr().out == sha(FIRST + bytes(10)).hex() + "\n"


def test_json_is_indented_on_standard_output_and_compact_in_a_file(files, capsys):
    assert cli_image_hash.main(["-m", "m", "-i", "x.bin", "--json"]) == 0
    assert capsys.readouterr().out == '{\n  "servtdInfoHash": "' + FIRST.hex() + '"\n}\n'
    assert cli_image_hash.main(["-m", "m", "-i", "x.bin", "--json", "-c", "-o", "out"]) == 0
    assert (files / "out").read_bytes() == b'{"servtdHash":"' + sha(FIRST + bytes(10)).hex().encode() + b'"}'
    assert cli_image_hash.main(["-m", "m", "-i", "x.bin", "-o", "out"]) == 0
    assert (files / "out").read_bytes() == FIRST
    assert capsys.readouterr().out == ""


def test_ignore_bits_zero_fields_before_anything_is_written(files, capsys):
    arguments = [
        "-m",
        "m",
        "-i",
        "x.bin",
        "-s",
        str(1 << 34),
        "--output-td-info",
        "info",
        "--update-tcb-mapping",
        "map",
    ]
    assert cli_image_hash.main(arguments) == 0
    zeroed = TDINFO[:16] + bytes(48) + TDINFO[64:]
    out, err = capsys.readouterr()
    assert out == sha(zeroed).hex() + "\n"
    assert "warning: rtmr1" in err
    expected = {"mrtd": "00" * 48, "rtmr0": SEPARATOR.hex(), "rtmr1": SEPARATOR.hex(), "rtmr2": RTMR2_V1.hex()}
    expected["rtmr3"] = "00" * 48
    assert (files / "info").read_text() == json.dumps(expected, separators=(",", ":"))
    upper = SEPARATOR.hex().upper()
    measured = f'{{"rtmr0":"{upper}","mrtd":"{"00" * 48}","rtmr1":"{upper}"}}'
    assert (files / "map").read_text() == (
        f'{{"z":0.5,"svnMappings":[{{"tdMeasurements":{measured},"isvsvn":1}},{{"isvsvn":2}}]}}'
    )


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["-m", "m"], 2),
        (["-i", "x.bin"], 2),
        (["-m", "m", "-i", "x.bin", "-s", "0x1"], 2),
        (["-m", "m", "-i", "x.bin", "-s", "-1"], 2),
        (["-m", "m", "-i", "x.bin", "-s", str(1 << 64)], 2),
        (["-m", "m", "-i", "x.img"], 1),
        (["-m", "m", "-i", "y.bin.igvm"], 1),
        (["-m", "none", "-i", "x.bin"], 1),
        (["-m", "x.bin", "-i", "x.bin"], 1),
        (["-m", "m", "-i", "x.bin", "--update-tcb-mapping", "m"], 1),
        (["-m", "m", "-i", "x.bin", "-o", "no/out"], 1),
        (["-m", "m", "-i", "x.bin", "-v", "-t", "--policy-v2"], 0),
    ],
)
def test_exit_statuses(files, arguments, status):
    before = {each.name: each.read_bytes() for each in files.iterdir()}
    assert cli_image_hash.main(arguments) == status
    assert {each.name: each.read_bytes() for each in files.iterdir()} == before

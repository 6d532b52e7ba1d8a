# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The policy tools: libraries, the console scripts over them, and what the tasks `policy.*` call (policy.md 5).

    signer       sign, verify and finalize JSON documents
    generate     policies v1 from collateral, policies v2 from their three parts
    items, pcs   collateral, fetched from a PCS-compatible service or read from files; the collaterals document
    servtd       identity and TCB mapping of a MigTD, and the bundle that a policy carries
    image_hash   measurements and ServTD hashes of an image (tdvf, igvm, firmware_volume, mrtd)
    measurements what a quote or TDREPORT says of its TD
    verifier     what a MigTD would say of a signed policy
    explainer    what a policy says of given evidence, rule by rule

Library functions take and return bytes or values, and raise `ToolError`. Only `files` touches the file system, only
`fetch` the network. The modules `cli_*` are the command lines.
"""

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Policy v2: signed documents, their evaluation and the flows that use them (policy.md 2). No private keys here.

decoding.py, envelope.py           signed JSON texts and their signatures
document.py                        policyData; the verification of one policy
collaterals.py, servtd.py          what is in it: for quotes, and of MigTDs
entries.py, properties.py, status.py, blocks.py    rules, and what they decide
values.py, tdreport.py             what is judged, from a quote or a TDREPORT
peer.py, owner.py, servtd_ext.py   a peer's policy, and the MigTD that a target TD had first
startup.py, evidence.py, flows.py, steps.py    the own policy, and who checks whom in which order
"""

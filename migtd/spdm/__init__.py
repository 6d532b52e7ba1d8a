# SPDX-License-Identifier: BSD-2-Clause-Patent
"""SPDM 1.2 sessions between two MigTDs (spdm.md), sans-IO: raw public keys, TDX evidence between them and FINISH.

session.py, rebinding.py, migration.py   what a session is for: made for the service, checks, keys or token
requester.py, responder.py, core.py      the two state tables, and what they share
accepted.py                              which negotiations a responder takes
agreement.py, transcript.py, keys.py     transcript, TH1, TH2 and the secrets that follow; the binding is injected
signing.py, evidence.py, records.py      keys and signatures, REPORTDATA, secured records
negotiation.py, handshake.py, vendor.py, vendor_messages.py, chunking.py, framing.py, reader.py
                                         the messages: a dataclass each, with push and pull
errors.py, failures.py                   how a peer is refused, and what people are told
recording.py, testing.py                 recorded sessions, and two ends in memory
"""

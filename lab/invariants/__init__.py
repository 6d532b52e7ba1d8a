# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The invariants of design.md, checked on what hosts recorded: I1 to I6 (checker.py) and I8 (leftovers.py).

I7, no secret in what is written, is held where things are written.
"""

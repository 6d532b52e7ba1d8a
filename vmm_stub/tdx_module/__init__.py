# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The emulated TDX module: TDCS of target TDs, RTMRs, TDREPORTs."""

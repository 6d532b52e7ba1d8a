# SPDX-License-Identifier: BSD-2-Clause-Patent
"""TDX quotes and the collateral that judges them: layouts, verifier, supplemental record (policy.md 4)."""

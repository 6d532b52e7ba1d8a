# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Where a lab runs: one small interface, one module per engine."""

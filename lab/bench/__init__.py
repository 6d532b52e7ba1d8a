# SPDX-License-Identifier: BSD-2-Clause-Patent
"""`./inv bench`: how fast a lab is, measured in one run and set against its targets (docs/performance.md)."""

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Requests, sessions and the migration itself (module names follow the reference)."""

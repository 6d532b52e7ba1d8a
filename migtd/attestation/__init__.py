# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Attestation modes: what evidence a MigTD shows and how it judges the evidence of its peer."""

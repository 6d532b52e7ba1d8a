# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The emulated VMM: vmcall channel, request queue, wire, log areas, control API."""

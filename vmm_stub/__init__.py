# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The emulated host: TDX module, VMM, wire and control API."""

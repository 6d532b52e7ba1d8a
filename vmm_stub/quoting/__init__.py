# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Quoting of an emulated host: lab PKI, quotes and collateral under it, the GetQuote service, captured quotes."""

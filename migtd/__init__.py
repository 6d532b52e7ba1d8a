# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The migration TD: the service TD that decides whether a TDX live migration may go ahead."""

__version__ = "0.1.0"

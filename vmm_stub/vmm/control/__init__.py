# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The control API of a host: HTTP on a unix socket, described by the OpenAPI document that it serves."""

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""RA-TLS: the attested TLS 1.3 session between two MigTDs (ghci-ratls.md 5)."""

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What a MigTD decides by: strict JSON, policy documents, their evaluation, and the trace that explains it."""

# SPDX-License-Identifier: BSD-2-Clause-Patent
"""Policy v1: the document, its evaluation, and its error names (policy.md 1)."""

from migtd.policy.v1.document import Block, BlockKind, PolicyV1, parse_policy
from migtd.policy.v1.evaluation import evaluate

__all__ = ["Block", "BlockKind", "PolicyV1", "evaluate", "parse_policy"]

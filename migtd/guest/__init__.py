# SPDX-License-Identifier: BSD-2-Clause-Patent
"""What a TD sees of its platform: interfaces, GHCI and channel codecs, and the emulated implementation."""

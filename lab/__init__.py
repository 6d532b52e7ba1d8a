# SPDX-License-Identifier: BSD-2-Clause-Patent
"""The library behind the tasks: lab files, engines, outcomes."""

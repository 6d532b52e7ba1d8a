# SPDX-License-Identifier: BSD-2-Clause-Patent
"""`conform`: run case files against the implementation: inputs, and the verdicts that they must give.

files.py          a case file and the data that its rows name
sections.py       which section is run by what
policy_v1.py, policy_v2.py, policy_v2_rules.py, evidence.py, certificates.py, supplemental.py
                  the runners, a module per family
runner.py         rows to verdicts to failures
command.py        the task
"""

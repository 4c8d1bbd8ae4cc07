"""The core: a policy takes arrays and returns rows.

A `Policy` gets a `History`, which holds what training has measured for each row, and a `Clock`, which gives the
progress of training. It returns a `Selection`. `ranking` chooses rows by score. `features` holds what is known about
rows before training. The core uses only NumPy and SciPy.
"""

from .history import IGNORED, NEVER, History
from .policy import DATA_NEEDS, BudgetPolicy, Policy, rounds_of
from .selection import Clock, Selection, whole_steps

__all__ = [
    "DATA_NEEDS",
    "IGNORED",
    "NEVER",
    "BudgetPolicy",
    "Clock",
    "History",
    "Policy",
    "Selection",
    "rounds_of",
    "whole_steps",
]

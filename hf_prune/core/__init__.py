"""Arrays in, rows out: three nouns and a clock.

A `History` of what training has revealed of each row goes into a `Policy`, with a `Clock` that says where training
stands; a `Selection` comes out. `ranking` chooses rows by score, and `features` holds what is known of rows before
training. NumPy and SciPy alone.
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

"""What the library reads from a training set before training.

`tokens` counts tokens and lengths. `features` and `pixels` read words, pictures and classes. `columns` and `listing`
read what a policy names: columns, and rows in a file. `duplicates` groups rows that are nearly the same, `repeats`
counts equal rows. `keys` reads the names of rows, `examples` what a person sees of a row, `brief` of all rows.
`fingerprint` makes checksums that tell one data set from another. A `datasets.Dataset` is read in bulk, any other data
set row by row; `kinds` tells them apart. `cache` keeps on disk what took long.
"""

from .brief import Brief
from .duplicates import find_groups, share_with_duplicates
from .examples import read_shown, show
from .features import read_features
from .fingerprint import row_checksums
from .keys import match, row_keys
from .kinds import has_own_loss, is_arrow
from .repeats import count_repeats
from .tokens import row_lengths, row_tokens

__all__ = [
    "Brief",
    "count_repeats",
    "find_groups",
    "has_own_loss",
    "is_arrow",
    "match",
    "read_features",
    "read_shown",
    "row_checksums",
    "row_keys",
    "row_lengths",
    "row_tokens",
    "share_with_duplicates",
    "show",
]

"""What the library reads from a training set before training.

`tokens` counts tokens and lengths. `features` and `pixels` read words, pictures and classes. `duplicates` groups rows
that are nearly the same. `keys` reads the names of rows, `examples` what a person sees of a row. `fingerprint` makes
checksums that tell one data set from another. A `datasets.Dataset` is read in bulk, any other data set row by row;
`kinds` tells them apart. `cache` keeps on disk what took long.
"""

from .duplicates import find_groups, share_with_duplicates
from .examples import read_shown, show
from .features import read_features
from .fingerprint import row_checksums
from .keys import match, row_keys
from .kinds import has_own_loss, is_arrow
from .tokens import row_lengths, row_tokens

__all__ = [
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

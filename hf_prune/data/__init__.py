"""What is read of a training set without training.

Tokens and lengths (`tokens`), words, pictures and classes (`features`, `pixels`), the names of rows (`keys`), what a
person sees of them (`examples`), and checksums that tell one data set from another (`fingerprint`). A
`datasets.Dataset` is read in bulk, any other data set row by row; `kinds` tells them apart.
"""

from .examples import read_shown, show
from .features import read_features
from .fingerprint import row_checksums
from .keys import match, row_keys
from .kinds import has_own_loss, is_arrow
from .tokens import row_lengths, row_tokens

__all__ = [
    "has_own_loss",
    "is_arrow",
    "match",
    "read_features",
    "read_shown",
    "row_checksums",
    "row_keys",
    "row_lengths",
    "row_tokens",
    "show",
]

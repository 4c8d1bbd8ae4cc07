"""Records that last, on disk and on the Hub.

The History that users see (`history`), its file (`history_file`) and its place on the Hub (`hub`), the trace of every
round (`trace`), what all rounds together show about each row (`dynamics`), and the table of rows (`table`).
`warm_start` begins a run with what an earlier run has learned. Import it by its own name: it needs `data`, which loads
torch.
"""

from .dynamics import Dynamics
from .history import History
from .history_file import HISTORY
from .table import FILE_ROW, ROWS, write_rows
from .trace import FOLDER, Trace, TracedRound, newest_round, read_trace

__all__ = [
    "FILE_ROW",
    "FOLDER",
    "HISTORY",
    "ROWS",
    "Dynamics",
    "History",
    "Trace",
    "TracedRound",
    "newest_round",
    "read_trace",
    "write_rows",
]

"""What lasts on disk and on the Hub.

The History that users see (`history`), in a file (`history_file`) and on the Hub (`hub`), the trace of every round
(`trace`), what the rounds together tell about each row (`dynamics`), and the table of rows (`table`). `warm_start`
begins a run with what an earlier one has learnt; import it by its own name, for it reads `data`, which loads torch.
"""

from .dynamics import Dynamics
from .history import History
from .history_file import HISTORY
from .table import FILE_ROW, ROWS, write_rows
from .trace import FOLDER, Trace, TracedRound, read_trace

__all__ = [
    "FILE_ROW",
    "FOLDER",
    "HISTORY",
    "ROWS",
    "Dynamics",
    "History",
    "Trace",
    "TracedRound",
    "read_trace",
    "write_rows",
]

"""What lasts on disk and on the Hub.

The trace of every round and the dynamics that it tells, the table of rows, a History on the Hub, and the warm start
from an earlier run. The one room of its floor that reads another: `data`.
"""

"""What every room stands on, and what knows nothing of pruning.

Files that are whole or refused, JSON of strangers, what is never shown, the program's random generators, Markdown,
and how a command ends. It imports none of the other rooms.
"""

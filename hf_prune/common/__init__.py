"""Tools that every room may use and that know nothing of pruning.

Files that are whole or refused, untrusted JSON, secrets and private paths, the program's random generators, Markdown,
and how a command ends. This room imports no other.
"""

"""What the recipes share.

Flags and files of rows, splits, how a run begins, goes on, and ends, well or not.
"""

"""What the recipes share.

Flags, files of rows and their columns, labels and splits, tokenizers and models, and how a run begins, continues and
ends.
"""

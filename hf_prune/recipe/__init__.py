"""What the recipes are made of.

Flags, files of rows and their columns, labels and splits, tokenizers and models, how a run begins, goes on, and ends.
"""

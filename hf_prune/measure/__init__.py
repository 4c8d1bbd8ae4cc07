"""A row's loss out of a training batch.

`readers` reads a batch of a known task into a `prediction`, which gives signals; `meter` attributes the loss to rows
whatever the task, `weighting` weights it, and `recorder` keeps what the steps of a round measured.
"""

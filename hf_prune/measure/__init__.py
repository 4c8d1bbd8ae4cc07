"""A row's loss out of a training batch.

A loss goes one way: `meter` watches the forward pass, `readers` read its outputs and targets into a `prediction`, the
prediction gives the signals of each row, and `recorder` keeps them until the round is closed. Beside it, `weighting`
weights the loss by what `graph` finds out about its outputs, and `agreement` checks that the recorded losses are those
that training uses.
"""

"""Whether pruning pays.

Runs of several arms with the same seeds are launched and compared: plans, results, intervals over seeds and rows,
tables, a page. The scores for policies that choose rows only once are made here, too.
"""

"""Whether pruning pays.

Runs of several arms with the same seeds, launched and put side by side: plans, results, intervals over seeds and
rows, tables, a page; and the scores of policies that choose once.
"""

"""Reports for people: what a run did.

The account compares the rows that were offered with the rows that were trained, padding included. It is shown as
numbers, Markdown, figures, an HTML page and a section of the model card. `advice` says what could be saved or gained:
`facts` reads what the rows show, `topics` judges it, and `evidence` says what such advice has gained elsewhere.
"""

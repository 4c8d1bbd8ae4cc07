"""Reports for people: what a run did.

The account compares the rows that were offered with the rows that were trained, padding included. It is shown as
numbers, Markdown, figures, an HTML page and a section of the model card.
"""

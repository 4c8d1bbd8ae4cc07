"""What a run did, for people.

The account of what was trained of what was offered, padding among it, as numbers, Markdown, figures, an HTML page and
a section of the model card.
"""

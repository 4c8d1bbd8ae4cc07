"""What a run did, for people.

The account of the rows that were offered and of those that were trained, padding included: as numbers, Markdown,
figures, an HTML page and a section of the model card.
"""

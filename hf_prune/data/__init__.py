"""What is read of a training set without training.

Tokens and lengths, words, pictures and classes, the names of rows, what a person sees of them, and a fingerprint that
tells one data set from another.
"""

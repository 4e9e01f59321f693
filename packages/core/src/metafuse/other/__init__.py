"""Small extras that are in no other package.

What it is: ``code_softmax``.
What it is not: a second place for operators.
Who calls it: users, as ``metafuse.other``.
"""

"""Grading of notebooks that are not to be trusted: a teacher's tool beside the book, not part of the package.

The student's code runs in a sandbox (`sandbox`, `runner`); what it answers is judged elsewhere (`judge`).
"""

"""Audit of a corpus: what is wrong with its clips, and which of them are the same."""

"""Finished runs and shards as folders that others can take in, with cards that say what they are."""

"""Drawn corpora, whose ground truth is known exactly."""

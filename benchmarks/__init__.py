"""Measurements of time and memory, each a module with its own command; see README.md beside this file."""

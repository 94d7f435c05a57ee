"""Networks that others published, one file each: their names, sizes, and how a question is read."""

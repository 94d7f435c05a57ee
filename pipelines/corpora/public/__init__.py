"""Published corpora, from the files people have."""

"""Features that others extracted, taken in as sequence shards."""

"""Look after the feature store: fill it, describe, verify, evict, clear."""

"""Maintain the feature store: fill, describe, verify, evict, clear."""

"""Rows of numbers under content keys: keys, segments, index, eviction, the store."""

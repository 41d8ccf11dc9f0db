"""Shared helpers: text and paths, progress, atomic file writes, float32 precision.

Read first: `atomic` (files are replaced whole or not at all), `precision` (float32 that stays
float32).
"""

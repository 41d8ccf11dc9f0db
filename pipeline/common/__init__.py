"""Shared helpers: text and paths, progress, memory, atomic file writes, float32 precision, tasks.

Read first: `atomic` (files are replaced whole or not at all), `precision` (float32 that stays
float32), `budget` (how many rows fit in memory), `by_value` (tensors on their way to another
process), `optional` (packages that may not be installed), `tasks` (the seam between the stages and
the executor that runs them), `plane` (what brings workers the files that they do not see).
"""

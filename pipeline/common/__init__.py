"""What every room needs: text for people and files, progress, whole files, exact arithmetic.

Read first: `atomic` (files that are there whole or not at all), `precision` (float32 that stays
float32).
"""

"""What a person does: one room for each kind of work, and the command line above them.

`session` → `scoring` → `learning`, `rerun`, `viewing`, `store` → `cli`. `api` is the same from
Python.
"""

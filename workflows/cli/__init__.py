"""The command line: parses and checks arguments, and calls the workflows.

Read first: `app` (the entry point and most commands; `pairs`, `learning`, `runs` and `viewing` have
the others), then `options` (shared options), `runner` (progress, Ctrl-C, printing of results),
`messages` (errors name options where Python names keywords).
"""

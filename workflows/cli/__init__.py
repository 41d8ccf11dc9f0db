"""The command line: parses and checks arguments, and calls the workflows.

Read first: `app` (the commands), then `options` (shared options), `runner` (progress, Ctrl-C,
printing of results).
"""

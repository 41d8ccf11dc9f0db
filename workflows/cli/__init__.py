"""The command line: what is typed, checked and handed on.

Read first: `app` (the commands), then `options` (what they share), `runner` (progress, Ctrl-C,
errors as messages).
"""

"""What every command begins with: settings, screen, store, and the collection.

In: settings. Out: an open session and a collection whose rows can be asked for. Read first:
`settings`, `session`, `collection`; `cluster` opens what carries out the work elsewhere,
`own_workers` starts it on this machine, `workers` counts those that there are, `probe` finds out
what they see, and `plane` brings them what they do not see;
`preflight` and `dryrun` say what a run will cost, `screen` shows progress, `keywords` and `given`
take what a program gives; `staging` and `runcopy` bring runs to a URL.
"""

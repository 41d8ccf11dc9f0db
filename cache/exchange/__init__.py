"""Rows of a store in a remote folder: sealed segments, and catalogues of the rows in them.

In: a store and a folder of objects (the protocol `RemoteFolder`). Out: rows under their keys,
verified. Knows no network: an implementation of the protocol does. SQLite never leaves the local
disk.

Read first: `folder` (what a remote folder has to do, and what lies where in it), `catalogue` (which
rows lie in which object; `remote_segments` writes its files, `kept` keeps them on this machine),
`push` (from a store; `parcels` makes one object of small segments, `uncatalogued` finds what killed
pushes have left, `altered` what has changed since), `fetch` (to a store).
"""

"""lpipstore behind the interfaces of other packages: torchmetrics, scikit-learn, vector databases.

In: images as those packages hand them over, a finished run. Out: what they expect. Read first:
`embeddings` (rows for a vector database), then `torchmetrics` and `sklearn`, which people import as
``lpipstore.torchmetrics`` and ``lpipstore.sklearn``: files of these names at the root of the
package would hide the real packages from whoever runs Python there, so the root's ``__init__``
finds them here. Type checkers find them by `stubs`, which are installed as ``lpipstore-stubs``.
"""

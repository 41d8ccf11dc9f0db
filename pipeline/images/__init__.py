"""From whatever holds images to pixels.

In: folders, files, archives, lists and patterns, or arrays. Out: image records named by the hash of
their content, and batches of decoded pixels. Read first: `source` (what a kind of source is), then
`sources` (find and open images by name), `survey`, `decode`, `loader`.
"""

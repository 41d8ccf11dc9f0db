"""From paths to pixels.

In: folders, files and glob patterns, or arrays. Out: image records named by the hash of their
content, and batches of decoded pixels. Read first: `find`, then `survey`, `decode`, `loader`.
"""

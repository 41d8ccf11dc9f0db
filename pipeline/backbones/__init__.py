"""From a name to a frozen CNN.

In: the name of a backbone and the source of its weights. Out: a `Backbone` with its taps and the
digest of its weights. Read first: `load`, then `backbone`; a new family of backbones is one file
beside `lpips_nets` and `torchvision_nets`.
"""

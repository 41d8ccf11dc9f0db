"""The stages of a run: images, backbones, features, heads, distances, schedule, results."""

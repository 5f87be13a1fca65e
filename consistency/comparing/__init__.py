"""Two clusters, a source and a target, compared as one: whether the target holds what the source holds."""

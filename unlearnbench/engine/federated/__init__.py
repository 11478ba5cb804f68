"""The training of a reference model by a federation: here, by an engine that a plugin brings, or party by party."""

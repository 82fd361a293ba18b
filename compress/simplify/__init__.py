"""A trained network made simpler: activations replaced, squeeze-excite taken out, channels removed."""

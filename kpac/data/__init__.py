"""Data: images on disk -> scenes -> tensors, and data sets made from sharp photographs."""

"""Other networks of the field: their published checkpoints, and baselines to train beside KPAC."""

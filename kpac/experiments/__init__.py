"""Many runs at once: sweeps over a configuration, and the paper's tables."""

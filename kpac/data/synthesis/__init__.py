"""Synthetic defocus: makes scenes with views, a target and the true blur radius from sharp photographs."""

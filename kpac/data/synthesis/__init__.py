"""Synthetic defocus: sharp photographs become scenes with views, a target and the true blur radius."""

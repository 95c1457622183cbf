"""Flags that binaries share: what they are called, what they mean, how they become arguments."""

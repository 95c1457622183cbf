"""Whole experiments over several methods: baselines and comparisons on one data set."""

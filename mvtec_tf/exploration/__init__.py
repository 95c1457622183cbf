"""A data set looked at before any training: counts, duplicates, findings, a page."""

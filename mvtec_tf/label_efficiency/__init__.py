"""Encoders x heads x label budgets x draws, cell by cell, with statistics and a page."""

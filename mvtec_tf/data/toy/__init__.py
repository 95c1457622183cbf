"""The toy factory: a small data set in the MVTec layout, drawn from a seed."""

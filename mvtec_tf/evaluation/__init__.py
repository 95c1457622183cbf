"""From a table of predictions to numbers, pictures and a report."""

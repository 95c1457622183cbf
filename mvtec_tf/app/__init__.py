"""The page of a line: a part is shown and judged, its verdict corrected, the threshold moved, the model fitted anew."""

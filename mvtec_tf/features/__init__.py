"""Features of records by an encoder, computed once and kept."""

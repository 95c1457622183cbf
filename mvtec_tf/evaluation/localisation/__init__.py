"""Heat maps against masks."""

"""One file a screen: its addresses, and the same calls for programs."""

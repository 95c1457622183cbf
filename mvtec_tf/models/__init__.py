"""Networks, losses and heads. Knows no files (but a weights file), no flags, no plots."""

"""Networks, pretext methods and losses. Knows no files but a weights file, no flags, no pictures."""

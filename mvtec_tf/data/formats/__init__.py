"""Every form in which people have their photographs, read into records."""

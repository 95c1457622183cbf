"""What only maintainers run: measurements of this project, and fuzzing."""

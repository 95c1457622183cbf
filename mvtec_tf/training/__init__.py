"""The loop around any model: run directory, precision, schedules, checkpoints, resume."""

"""The original study repeated: its protocol, its head, its questions and their answers."""

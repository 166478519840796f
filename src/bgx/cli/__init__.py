"""The door for shells: Click; the only rooms that print or exit."""

"""Orders and their commands, for staff and customers."""

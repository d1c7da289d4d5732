"""Reports of a day, for staff."""

"""Series of numbers: history and live points."""

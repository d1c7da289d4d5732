"""Recordings of real phones and cars, and arrivals on them that were labelled by hand."""

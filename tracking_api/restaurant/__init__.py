"""A restaurant's page: its own orders, for its staff."""

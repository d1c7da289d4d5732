"""The drivers' API: fixes over HTTP, duty, and a driver's order commands."""

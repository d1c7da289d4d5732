"""The drivers' door: fixes over HTTP, duty, and what a driver does with an order."""

"""Notifications to customers who asked for them, when the page is closed."""

"""Alerts of the fleet, for staff."""

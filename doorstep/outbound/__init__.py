"""Requests to addresses that others chose: webhooks' receivers, browsers' push services."""

"""Webhooks, for admins: addresses of other systems that are sent events of orders."""

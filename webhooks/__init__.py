"""Sends events of orders to other systems: docs/how-to/webhooks.md.

database queue → claim → resolve and check the address → sign → POST → report
"""

"""The past: tracks of drivers and orders, and exports."""

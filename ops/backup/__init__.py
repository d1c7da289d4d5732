"""Backups of the native stack's database: docs/how-to/backup.md."""

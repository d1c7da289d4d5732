"""Staff, drivers' credentials, and the audit of reads."""

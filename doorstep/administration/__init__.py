"""What admins set: drivers, restaurants, service areas and policies, as fields and as CSV."""

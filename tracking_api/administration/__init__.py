"""Administration: drivers, restaurants, service areas and policies."""

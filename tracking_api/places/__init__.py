"""The search for places: restaurants, addresses and streets."""

"""What every Doorstep service shares: contracts, settings, errors, telemetry and the store.

Imports no service. Read in this order: `fix` (the contract of one GPS fix), `errors`,
`settings`, `telemetry`, then `store`, the only part that talks to PostgreSQL.
"""

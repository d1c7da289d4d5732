"""What Doorstep's HTTP services share: problem documents, bodies, tokens, health, metrics.

No routes of a service's own and no database: a service hands in what these need.
"""

"""Simulators: they use Doorstep from outside, as phones, couriers and restaurants do.

couriers            a fleet on Florence's streets, its orders and customers
cities              vans between French cities
tickers             series of numbers
replay              a recorded track, published as a device
send                one fix, and its outcome
api                 the public HTTP APIs, with retries
outcomes            the outcome of published fixes
simulation_targets  the number of couriers, vans or tickers that staff asks for
tracks              recorded tracks: GPX, KML, Google Timeline, GeoJSON, FIT, NMEA, CSV
"""

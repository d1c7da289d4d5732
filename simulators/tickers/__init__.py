"""Tickers: series of numbers over one MQTT connection, each a random walk of ±1 per second.

__main__    reads the target count and the last values, and publishes
walk        the random walks
publisher   the connection; unacknowledged points are sent again on the next one
"""

"""Tickers: series of numbers, each a random walk of ±1 a second from 0, over one MQTT connection.

__main__    asks how many there are to be and where each stands, and publishes until it is stopped
walk        the walks
publisher   the connection; what was not acknowledged is sent again on the next one
"""

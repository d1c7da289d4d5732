"""Estimated times of arrival: routes along the streets, at speeds learned from past deliveries.

model.py              speeds, waiting times, drivers' paces and error bands of one version
features.py           the properties of a street graph that a ride's duration depends on
travel_time_cache.py  the remaining travel time from anywhere to a door
estimate.py           from a courier's position and trail to a p10-p50-p90 estimate
rides.py              past deliveries, and the ride segments that a model is fitted to
learning.py           fits a model to past deliveries
codec.py              a model as JSON
"""

"""When a courier arrives: the way along the streets, at speeds learned from past rides.

model.py     what was learned: speeds, waits, drivers' paces, and how far off it is
features.py  what of a street graph a ride's time depends on
doors.py     the way left from anywhere to a door, kept for as long as somebody asks
estimate.py  from a courier's place and trail to an instant with a p10-p90 band
learning.py  from rides of the past to a model
"""

"""Vans in France: each drives from city to city, with a device.

__main__  reads the target count and the last positions, and runs the vans
fleet     the vans' devices, with one journal; added and removed while it runs
van       one van's route
atlas     the cities, and distances between them
"""

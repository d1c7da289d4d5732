"""Vans in France: each from one city to another nearby, and on from there, as devices do.

__main__  asks how many there are to be and where each was, and runs them until it is stopped
atlas     the cities, and which ones are near
van       one van's way
fleet     their devices, one journal, added and removed while it runs
"""

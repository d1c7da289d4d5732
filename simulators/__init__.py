"""Devices and fleets that use Doorstep as real phones, couriers and shops do: from outside.

device    the reference device: journal, order, resends, store and forward
couriers  a fleet on Florence's streets, its orders and customers
replay    a recorded track, published as a device
send      one fix, and what became of it
"""

"""The fleet for dispatch: drivers, orders on the map, tiles, simulations."""

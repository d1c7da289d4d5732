"""`./run demo`: simulated couriers deliver orders on the native stack.

demo                the demo from start to report
options             what the command line may ask for
couriers            the process of simulators.couriers, restarted if it ends
side_simulators     the processes of simulators.cities and simulators.tickers
simulation_targets  how many of each kind staff has asked for
links               a customer's link to show
other_fleet         refuses a demo on a stack of real drivers or orders
open_orders         ends the orders that a demo leaves open
report              the figures at the end
"""

"""A fleet of couriers on a city's streets, with restaurants and customers.

shift     the whole fleet: start, fixes, restart, changes of its size
courier   one courier: rides, waits, picks up, delivers
orders    the orders' side: customers order, kitchens confirm, staff assigns
job       one order of the simulation
details   what is ordered and promised, and why something goes wrong
demand    when and where orders come from, by the distributions of real meal delivery
motion    a course: a path with a time at each point
streets   the fastest way on the street graph, and traffic lights
traffic   how much slower rides are by hour, street, day and rider
receiver  the errors of a phone's GPS
sample    writes one delivery as a GPX track
clock     simulated time
"""

CUSTOMER_NAME = "Simulated customer"  # of every order that the couriers' simulator creates

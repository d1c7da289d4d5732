"""A fleet of couriers on Florence's streets, its restaurants and its customers.

streets   the street graph: nearest street, shortest way
motion    a timed way: rides at each street's speed, red lights, walks, waits
receiver  what a phone's GPS makes of a true position
demand    which orders come when, from where, to where: real meal delivery's distributions
api       the public HTTP APIs, with patience
courier   one courier's life
orders    one order's life, as the shop and the customer see it
shift     the whole fleet: warm start, reporting, restart
"""

CUSTOMER_NAME = "Simulated customer"  # of every order that the couriers' simulator creates

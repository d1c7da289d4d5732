"""The customers' and the staff's door: orders, "where is my order?", and the fleet's map."""

"""What an operator runs against a stack: each module is a command of `./run`."""

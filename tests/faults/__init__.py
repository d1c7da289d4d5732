"""Faults: break a loaded stack on purpose, and check what it promises.

    ./run faults [--only N ...] [--json]

`environment` runs the stack, `load` its devices and orders, `checker` the invariants. The faults
are in `whole_stack`, `brokers`, `kafka`, `consumers`, `network`, `database`, `apis`, `viewers` and
`devices`.
"""

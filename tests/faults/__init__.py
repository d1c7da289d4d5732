"""Faults: a loaded stack of our own is broken on purpose, and what it promised is checked.

    ./run faults [--only N ...] [--json]

`lab` has the stack, `load` the devices and orders on it, `checker` the invariants; `brokers`,
`kafka`, `consumers`, `network`, `database`, `apis`, `viewers` and `devices` the faults.
"""

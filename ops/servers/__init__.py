"""Single servers as child processes, for tests and benchmarks that need less than a whole stack.

Each can be killed and started again on its own data. A whole stack is `ops.stack`.
"""

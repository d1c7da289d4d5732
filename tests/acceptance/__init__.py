"""Commands of `./run` against whole stacks. One stack is shared, until the folder's last test."""

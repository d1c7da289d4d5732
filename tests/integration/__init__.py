"""Services together, on real servers. One stack is shared, until the folder's last test."""

"""The pages in Chromium. One stack is shared, until the folder's last test."""

"""What the service remembers: the base, pages, time and transactions."""

"""What is done outside a request: the queue, and what runs it."""

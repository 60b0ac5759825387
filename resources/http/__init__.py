"""The plumbing that every resource shares; it knows no noun."""

"""What the service costs, beside its peers and the limit."""

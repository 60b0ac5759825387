"""What the service does: every rule, one module a noun; it knows no HTTP."""

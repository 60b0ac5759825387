"""What the service does: the rules, without HTTP."""

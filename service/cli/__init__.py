"""Commands for operators: `flask users …`, `flask doctor`, `flask migrate-on-start`."""

"""What the service is told: settings and logs."""

"""What the service is told: every setting once, with its sentence."""

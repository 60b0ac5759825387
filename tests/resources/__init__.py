"""The resources, through the front door."""

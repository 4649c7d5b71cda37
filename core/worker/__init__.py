"""What runs in a worker process. Anything else starts it by name and imports none of it."""

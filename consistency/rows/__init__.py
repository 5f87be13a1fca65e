"""One row on all its replicas: read, compared, explained."""

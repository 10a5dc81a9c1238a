"""The daemon's own HTTP: status page, metrics, health, and polling on request."""

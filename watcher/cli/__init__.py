"""The commands, a module each, and how they print; `app` holds them all. Nothing else prints."""

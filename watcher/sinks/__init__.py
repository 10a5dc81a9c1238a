"""Where picks are handed to."""

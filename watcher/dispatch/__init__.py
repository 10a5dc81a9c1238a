"""Who runs a run: threads of this process."""

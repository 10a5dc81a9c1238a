"""Where datasources keep their objects: a folder, or a bucket of a cloud."""

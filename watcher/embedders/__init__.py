"""Pictures to vectors that lie near each other when the pictures look alike."""

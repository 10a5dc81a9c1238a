"""What can be set by variables: `root` has all groups, `variables` finds their places, the rest are the groups."""

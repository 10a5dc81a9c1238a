"""Sequences of calls that keep their promise when any of the calls fails. Stateless; the caller holds the state."""

"""Shapes of the protocol, one module a resource, shared by the client and the platform.

Readers are lenient: unknown fields are ignored, so a newer server breaks nobody. Writers are exact: absent fields
are left out, since the official client 1.5.26 refuses null and unknown fields alike.
"""

"""Composes one rig from the parts it is given."""

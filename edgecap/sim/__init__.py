"""Seeded rig, recordings and faults; ordinary back-ends behind the lowest seam."""

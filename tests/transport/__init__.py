"""Encrypted ways to the real services, with right, wrong and expired certificates."""

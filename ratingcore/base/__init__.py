"""Allocation, compiler intrinsics and pools of distinct byte strings."""

"""Blocks over several servers: who runs which stage, feature maps from one to the next, and what happens when one dies.

device ── route ──▶ member of stage 1 ──▶ member of stage 2 ──▶ ... the answer comes back along the open calls
"""

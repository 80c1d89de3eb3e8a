//! Layer 1: the seams to the world.

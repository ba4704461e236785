"""RePro process rewards for TRL."""

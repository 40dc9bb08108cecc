"""What ``chargen bench`` measures."""

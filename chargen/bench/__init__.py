"""What ``chargen bench`` measures: chargen beside what people would use instead."""
